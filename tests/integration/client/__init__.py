"""The client, on every store."""
