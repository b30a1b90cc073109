"""`MODULE:APP`: what is found, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncetask.cli.exits import BadInput
from oncetask.cli.targets import load_app


@pytest.mark.usefixtures("folder")
def test_an_app_is_found_from_the_current_folder() -> None:
    """A module beside the user, and an attribute of an attribute, are found."""
    assert sorted(load_app("jobs:app").handlers()) == ["greet", "hold", "sleep"]
    assert load_app("jobs:Factory.app") is load_app("jobs:app")


def test_a_module_of_a_package_is_found(folder: Path) -> None:
    """`package.module:app` is imported as Python would."""
    (folder / "shop_of_this_test").mkdir()
    (folder / "shop_of_this_test" / "tasks.py").write_text("from jobs import app as tasks")
    assert load_app("shop_of_this_test.tasks:tasks") is load_app("jobs:app")


@pytest.mark.parametrize(
    "target", ["jobs", "jobs:", ":app", "jobs:app:more", "./jobs:app", "jobs:app()", "a b:app", ""]
)
def test_a_malformed_target_is_refused(target: str) -> None:
    """What is no MODULE:APP is refused with an example."""
    with pytest.raises(BadInput, match="must be given as MODULE:APP, such as jobs:app"):
        load_app(target)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nojobs:app", "there is no module 'nojobs', neither in .* nor installed"),
        ("jobs.part:app", "there is no module 'jobs.part'"),
        ("jobs.py:app", r"there is no module 'jobs.py', .* \(the module is 'jobs', 'jobs.py' its file\)"),
        ("jobs:nothing", "module 'jobs' has no 'nothing'; the module has the App jobs:app, jobs:empty"),
        ("jobs:Factory.ap", "'Factory' of module 'jobs' has no 'ap'; the module has the App jobs:app"),
        ("jobs:number", "'number' of module 'jobs' is no App but a int; the module has the App jobs:app"),
        ("json:dumps", "is no App but a function; the module has no App at all"),
    ],
)
def test_what_is_missing_is_named(target: str, message: str) -> None:
    """A module or an attribute that is not there is named, with the Apps that are."""
    with pytest.raises(BadInput, match=message):
        load_app(target)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import no_such_thing",
            r"ModuleNotFoundError: No module named 'no_such_thing' \(.*broken.py, line 1\)",
        ),
        ("\n\nfrom json import nothing", r"ImportError: .* \(.*broken.py, line 3\)"),
        ("x = 1\nx = = 2", r"SyntaxError: .* \(.*broken.py, line 2\)"),
        ("def f():\n    1 / 0\nf()", r"ZeroDivisionError: division by zero \(.*broken.py, line 2\)"),
        ("raise SystemExit(3)", r"SystemExit: 3 \(.*broken.py, line 1\)"),
    ],
)
def test_a_failure_inside_of_the_module_says_where(folder: Path, source: str, message: str) -> None:
    """An error while the module is imported is not taken for a missing module; its file and line are told."""
    (folder / "broken.py").write_text(source)
    with pytest.raises(BadInput, match=f"importing 'broken' failed: {message}"):
        load_app("broken:app")
