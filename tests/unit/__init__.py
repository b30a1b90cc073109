"""Tests that need neither a network nor another process to be right."""
