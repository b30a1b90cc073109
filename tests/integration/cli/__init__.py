"""The real command line, in this process where it is fast and in its own where signals and pipes matter."""
