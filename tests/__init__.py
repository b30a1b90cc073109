"""The tests of oncetask: a package, so that benchmarks can use its emulator too."""
