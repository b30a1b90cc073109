"""The command line: one module for each group of commands, put together in `root`.

`oncetask COMMAND --help` says what each takes. Nothing here is API; programs use the SDK.
"""

from oncetask.cli.entry import main

__all__ = ["main"]
