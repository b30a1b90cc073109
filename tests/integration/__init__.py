"""Whole parts of the library together, on real stores."""
