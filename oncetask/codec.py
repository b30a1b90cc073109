"""The hook for what users put into tasks: a `Codec` makes other bytes of it before it is stored, by encrypting it, say.

`store.coding` calls it. Here is also what a coded map in a document is known by, with or without a codec at hand.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

__all__ = ["CODED", "Codec", "SealedMap", "SealedText", "check_codec", "codec_from_environment", "why_coded"]

CODED = "oncetaskCoded"
"""The key that every coded map in a document has; a payload may have no field of that name."""

_VARIABLE = "ONCETASK_CODEC"
_EXAMPLE = "module:object, such as shop.keys:codec"


@runtime_checkable
class Codec(Protocol):
    """What `connect(codec=…)` takes: an object with these two methods.

    They are handed what came from users, as UTF-8 text, JSON for the most part: `data`, `result`, the message and data
    of `progress`, the messages of `errors`. All else in a document stays readable, since queries need it: ids, kinds,
    resource keys, owners, times, the types of errors.

    They only compute: both are called on the event loop, and from other threads too, so they neither wait nor keep
    state. A key that has to be fetched is fetched before, once. What they do may differ from call to call (encryption
    does): nothing compares coded values.
    """

    def encode(self, plain: bytes, /) -> bytes:
        """Give what is to be stored. What it raises keeps the task from being stored."""

    def decode(self, coded: bytes, /) -> bytes:
        """Give back what `encode` was given, or raise: for another key, or what somebody else wrote."""


class SealedMap(dict[str, Any]):
    """A coded map that could not be decoded, as it is stored; written back, it stays that."""

    why = ""
    """For people."""


class SealedText(str):
    """A coded text that could not be decoded, as it is stored; written back, it stays that."""

    __slots__ = ()


def why_coded(data: Mapping[str, Any]) -> str | None:
    """Say why a task's data is still coded; None: it is not."""
    if isinstance(data, SealedMap):
        return data.why
    return f"no codec was given (connect(codec=…) or {_VARIABLE})" if CODED in data else None


def check_codec(codec: object, name: str = "codec") -> Codec:
    """Check that something has the methods of a codec. Raises TypeError that begins with `name`."""
    if isinstance(codec, type) or not isinstance(codec, Codec):
        msg = f"{name} must be an object with the methods encode(bytes) and decode(bytes), not {codec!r:.80}"
        raise TypeError(msg)
    return codec


def codec_from_environment() -> Codec | None:
    """Give the codec that ONCETASK_CODEC names as `module:object`; None: it names none.

    The object is a codec, or something to be called without arguments that gives one. Imports the module, which may be
    in the current folder. Raises ValueError that names the variable, TypeError for what is no codec, and whatever the
    module or that call raises.
    """
    target = os.environ.get(_VARIABLE)
    if not target:
        return None
    module_name, _, name = target.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        msg = f"{_VARIABLE} must be {_EXAMPLE}, not {target!r}"
        raise ValueError(msg)
    module = _imported(module_name)
    if module is None:
        msg = (
            f"{_VARIABLE} is {target!r}, but there is no module {module_name!r}, neither in {Path.cwd()} nor installed"
        )
        raise ValueError(msg)
    if not hasattr(module, name):
        msg = (
            f"{_VARIABLE} is {target!r}, but module {module_name!r} has no {name!r} "
            "(or not yet: a module that connects while it is imported cannot hold the codec)"
        )
        raise ValueError(msg)
    found = getattr(module, name)
    is_made = isinstance(found, type) or not isinstance(found, Codec)
    return check_codec(found() if is_made and callable(found) else found, f"{_VARIABLE}, {target!r},")


def _imported(name: str) -> ModuleType | None:
    """Import a module that Python finds, or else from the current folder; None: it is nowhere."""
    for folder in (None, str(Path.cwd())):
        if folder is not None and folder not in sys.path:
            sys.path.append(folder)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # what is missing is something that the module itself imports
    return None
