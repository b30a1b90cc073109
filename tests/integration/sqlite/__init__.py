"""The SQLite adapter, where the contract does not see it."""
