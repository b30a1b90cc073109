"""oncetask on Firestore in production, simulated: where it saturates, what that costs, and what the settings should be.

`assumptions` holds every number that the rest relies on, with its unit and where it comes from. `ranges` reads from
`firestore.indexes.json` which parts of which index a task's life writes to. `closeup` follows every call of every
worker and is the model for minutes and bursts; `flow` moves quantities in steps of a second and is the model for whole
days. `keys` follows the lock of one resource key. Nothing here talks to a store.
"""
