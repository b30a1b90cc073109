"""The programs in `examples/`, run as a reader runs them."""
