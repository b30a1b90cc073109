"""Which indexes the queries need that the suite sends, held against `firestore.indexes.json`.

The emulator answers every query without an index, so a missing one would show in production only. `recorder` notes the
shape of each query that leaves a process, `derivation` says which indexes serve it, and `tests.index_plugin` joins both
at the end of a session.
"""
