"""The worker, on every store."""
