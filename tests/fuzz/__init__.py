"""Hostile input: whatever is sent, typed or stored, is done or refused with its name, and nothing falls over.

`FUZZ_TIMES=20 python -m pytest tests/fuzz` tries twenty times as many examples, each test with twenty times the time.
"""
