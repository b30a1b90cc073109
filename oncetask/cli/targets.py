"""`MODULE:APP`: the App of a user's program, found from the current folder."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from oncetask.app import App
from oncetask.cli.exits import BadInput

__all__ = ["load_app", "load_app_with_handlers"]


def load_app(target: str) -> App:
    """Import the module and give the App that the rest of `target` names. Raises BadInput that says what is wrong."""
    module_name, colon, path = target.partition(":")
    names = path.split(".")
    if not colon or not all(name.isidentifier() for name in (*module_name.split("."), *names)):
        hint = " (the module's name, not a path)" if "/" in module_name else ""
        msg = f"the App must be given as MODULE:APP, such as jobs:app or shop.tasks:app, not {target!r}{hint}"
        raise BadInput(msg)
    found: object = _imported(module_name)
    apps = [f"{module_name}:{name}" for name, value in vars(found).items() if isinstance(value, App)]
    offer = f"the module has the App {', '.join(apps)}" if apps else "the module has no App at all"
    reached = f"module {module_name!r}"
    for name in names:
        if not hasattr(found, name):
            msg = f"{reached} has no {name!r}; {offer}"
            raise BadInput(msg)
        found, reached = getattr(found, name), f"{name!r} of {reached}"
    if not isinstance(found, App):
        msg = f"{reached} is no App but a {type(found).__name__}; {offer}"
        raise BadInput(msg)
    return found


def load_app_with_handlers(target: str) -> App:
    """Do as `load_app`, and raise BadInput for an App that could run nothing."""
    app = load_app(target)
    if not app.handlers():
        msg = f"{target} has no handler, so there is nothing that it could run: register one with @app.handler"
        raise BadInput(msg)
    return app


def _imported(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            hint = f" (the module is {name[:-3]!r}, {name!r} its file)" if name.endswith(".py") else ""
            msg = f"there is no module {error.name!r}, neither in {here} nor installed{hint}"
            raise BadInput(msg) from error
        raise BadInput(_import_failed(name, error)) from error
    except (Exception, SystemExit) as error:
        raise BadInput(_import_failed(name, error)) from error


def _import_failed(name: str, error: BaseException) -> str:
    """Say what went wrong, and at which line: the last one that is not of the import machinery."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}"
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
    return f"importing {name!r} failed: {type(error).__name__}: {error} ({where})"
