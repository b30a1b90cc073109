"""A deterministic simulation of everything together: workers, ticks, clients, a store, and what goes wrong."""
