"""What a type checker sees of the public API.

These files are checked by mypy (`make lint`) and never run. `assert_type` states what a name is; a `type: ignore`
states that a line is refused, since one that is not needed is an error itself.
"""
