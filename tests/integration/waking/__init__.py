"""Wakers against real servers: what arrives, what is waited for, and what happens when it does not work."""
