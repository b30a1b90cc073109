"""The tick, on every store."""
