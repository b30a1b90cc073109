"""The audit of what oncetask depends on."""

from __future__ import annotations

import json
import subprocess
import sys
from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.audit import bad_licences, licences_of, read_report, shipped

ROOT = Path(__file__).parents[2]


class Package(Distribution):
    """An installed package that says this of itself."""

    def __init__(self, name: str, *requires: str, **fields: str) -> None:
        self._message = Message()
        self._message["Name"] = name
        for field, value in fields.items():
            self._message[field.replace("_", "-")] = value
        for line in requires:
            self._message["Requires-Dist"] = line

    @property
    def metadata(self) -> Any:
        """What it says."""
        return self._message

    @property
    def requires(self) -> list[str]:
        """What it needs."""
        return self._message.get_all("Requires-Dist") or []

    def read_text(self, filename: str) -> None:
        """There are no files."""

    def locate_file(self, path: Any) -> Any:
        """There are no files."""
        raise NotImplementedError


def test_everything_installed_here_has_a_licence_that_is_fine() -> None:
    """Of what is installed with oncetask all, and of its tools all but those that are named."""
    assert bad_licences(distributions()) == []


def test_what_users_install_is_known() -> None:
    """Direct and indirect dependencies and the extras are among it, tools for development are not."""
    names = shipped({canonicalize_name(package.metadata["Name"]): package for package in distributions()})
    assert {"pydantic", "pydantic-core", "grpcio", "starlette", "cryptography", "google-cloud-tasks"} <= names
    assert not {"pytest", "codespell", "mypy", "hypothesis"} & names


def test_a_copyleft_dependency_is_named() -> None:
    """One that comes with oncetask is wrong whatever the list of tools says; one that says nothing is wrong, too."""
    packages = [
        Package("oncetask", "codespell", "odd; extra == 'http'", License_Expression="Apache-2.0"),
        Package("codespell", License_Expression="GPL-2.0-only"),
        Package("odd"),
        Package("choice", Classifier="License :: OSI Approved :: MIT License"),
    ]
    assert bad_licences(packages) == [
        "codespell: GPL-2.0-only (installed with oncetask)",
        "odd: not declared (installed with oncetask)",
    ]
    assert bad_licences(packages[1:2]) == []


@pytest.mark.parametrize(
    ("fields", "licences"),
    [
        ({"License_Expression": "Apache-2.0 OR BSD-3-Clause"}, {"Apache-2.0", "BSD-3-Clause"}),
        ({"License": "Apache 2.0"}, {"Apache-2.0"}),
        ({"License": "The MIT License (MIT)\n\n" + "Permission is hereby granted " * 9}, {"not declared"}),
        ({"Classifier": "License :: OSI Approved :: BSD License"}, {"BSD"}),
        ({"License": "GPLv3"}, {"GPLv3"}),
        ({}, {"not declared"}),
    ],
)
def test_licences_are_read_wherever_they_are_declared(fields: dict[str, str], licences: set[str]) -> None:
    """As an expression, a classifier or a name; the text of a licence is none of these."""
    assert licences_of(Package("p", **fields)) == licences


def test_a_report_says_what_was_left_out() -> None:
    """A package that the service does not know counts as not looked at, though pip-audit ends well."""
    report = {
        "dependencies": [
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]},
            {"name": "odd", "skip_reason": "not found"},
        ]
    }
    verdict = read_report(json.dumps(report))
    assert verdict == (2, ["bad 2: PYSEC-1, mended in 2.1"], ["odd: not found"])
    for rubbish in ("", "[]", '{"dependencies": [{"name": "x"}]}'):
        with pytest.raises(ValueError, match=r"report|JSON|value"):
            read_report(rubbish)


@pytest.mark.parametrize(
    ("report", "says", "code"),
    [
        (
            '{"dependencies": [{"name": "x", "skip_reason": "not found"}]}',
            "NOT CHECKED: the service knows none of 1",
            0,
        ),
        ("", "NOT CHECKED: no network", 0),
        ('{"dependencies": [{"name": "x", "version": "1", "vulns": []}]}', "1 packages asked for, 0 found", 0),
        ('{"dependencies": [{"name": "x", "version": "1", "vulns": [{"id": "CVE-1"}]}]}', "x 1: CVE-1", 1),
    ],
)
def test_want_of_network_is_loud_and_no_failure(report: str, says: str, code: int, tmp_path: Path) -> None:
    """What could not be asked for is told, and fails only with --strict; a vulnerability always fails."""
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\necho 'no network' >&2\nprintf '%s' '{report}'\n")
    program.chmod(0o755)
    command = [sys.executable, "-m", "tests.audit", "--pip-audit", str(program)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert says in ran.stdout
    assert ran.returncode == code
    strict = subprocess.run([*command, "--strict"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert strict.returncode == (1 if "NOT CHECKED" in says else code)


def test_without_pip_audit_it_says_so() -> None:
    """There is nothing to be installed for the rest of it."""
    command = [sys.executable, "-m", "tests.audit", "--pip-audit", "/no/such/program"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, "NOT CHECKED: there is no /no/such/program" in ran.stdout) == (0, True)
