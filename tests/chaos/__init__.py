"""The load run under faults: `python -m tests.chaos` has processes share many thousand tasks while they are hurt.

`scene` runs it, `faults` does the harm, `meddling` and `feeder` are clients that change their minds or die, `worker`
runs `tasks`. Two observers that oncetask knows nothing of are compared in the end (`verdict`): what the processes of
the handlers said (`witness`), and every write that the store accepted (`ledger`), of which a trigger in SQLite's file
(`ground_sqlite`) or a relay in front of the emulator (`relay`) keeps a record.
"""
