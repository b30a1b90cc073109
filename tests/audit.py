"""What oncetask depends on: are there known vulnerabilities, and may it be used under its licences?

    make audit

Vulnerabilities are asked for with pip-audit, for the versions in constraints.txt. Where that cannot be done, for want
of network or of pip-audit, it is said loudly, and is no failure: nothing is known then, neither good nor bad. Licences
are read from what is installed, so they are looked at everywhere.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

__all__ = ["Verdict", "bad_licences", "licences_of", "read_report", "shipped"]

ROOT = Path(__file__).parents[1]
FINE = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSD",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",  # for files of its own, which nobody here changes
    "PSF-2.0",
}
"""What those who use oncetask may be given; all of them let a program of any licence import it."""
TOOLS = {
    "codespell": "GPL-2.0-only: a program that `make lint` starts, imported by nothing of ours",
    "pip": "MIT: makes the environment",
    "setuptools": "MIT: makes the environment",
}
"""Development only, never installed with oncetask: licences that FINE has not, or that are not declared, and why."""
EXTRAS = ("http", "functions", "cloudtasks")
"""What users install beside oncetask itself."""
_WORDS = (
    (r"apache.*2|apache software|^apache", "Apache-2.0"),
    (r"mozilla public license 2|mpl", "MPL-2.0"),
    (r"mit-0", "MIT-0"),
    (r"\bmit\b", "MIT"),
    (r"bsd[ -]2", "BSD-2-Clause"),
    (r"bsd[ -]3|3-clause bsd", "BSD-3-Clause"),
    (r"bsd", "BSD"),
    (r"\bisc\b", "ISC"),
    (r"python software foundation|psf", "PSF-2.0"),
    (r"0bsd", "0BSD"),
)
_LONGEST_NAME = 80  # what is longer in the field is the text of a licence, not its name


class Verdict(NamedTuple):
    """What pip-audit found."""

    checked: int
    """Packages about which the service had an answer."""
    vulnerable: list[str]
    """One line for each vulnerability."""
    unknown: list[str]
    """Packages that were left out, with the reason."""


def read_report(report: str) -> Verdict:
    """Read what `pip-audit --format json` printed. Raises ValueError where that is no report.

    It ends well also where it could ask about nothing at all, so what it left out counts, not how it ended.
    """
    try:
        dependencies = json.loads(report)["dependencies"]
        asked = [one for one in dependencies if "skip_reason" not in one]
        return Verdict(
            checked=len(asked),
            vulnerable=[f"{one['name']} {one['version']}: {_told(flaw)}" for one in asked for flaw in one["vulns"]],
            unknown=[f"{one['name']}: {one['skip_reason']}" for one in dependencies if "skip_reason" in one],
        )
    except (TypeError, KeyError) as error:
        msg = f"no report of pip-audit: {error!r}"
        raise ValueError(msg) from error


def licences_of(package: Distribution) -> set[str]:
    """Give the licences among which one may choose, by their SPDX names; those unknown here as they are written."""
    said = {field: package.metadata.get_all(field) or [] for field in ("License-Expression", "Classifier", "License")}
    declared = next(iter(said["License-Expression"]), "")
    if not declared:
        lines = [line.rsplit(" :: ", 1)[-1] for line in said["Classifier"] if "License" in line]
        text = next(iter(said["License"]), "")
        declared = " OR ".join(lines) or (text if len(text) <= _LONGEST_NAME else "")
    return {_spdx(name) for name in re.split(r"\s+OR\s+|\s*/\s*", declared) if name} or {"not declared"}


def shipped(installed: Mapping[NormalizedName, Distribution]) -> set[NormalizedName]:
    """Give the names of what is installed with oncetask and its extras for users."""
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    todo = [Requirement(f"oncetask[{','.join(EXTRAS)}]")]
    while todo:
        wanted = todo.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if name not in installed or (name, extras) in seen:
            continue  # what is not installed is for another platform or Python
        seen.add((name, extras))
        for needed in map(Requirement, installed[name].requires or ()):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                todo.append(needed)  # noqa: PERF401  # it grows while it is walked
    return {name for name, _ in seen}


def bad_licences(packages: Iterable[Distribution]) -> list[str]:
    """Name those whose licence is not known to be fine."""
    installed = {canonicalize_name(package.metadata["Name"]): package for package in packages}
    given = shipped(installed)
    return [
        f"{name}: {', '.join(sorted(licences))}{' (installed with oncetask)' if name in given else ''}"
        for name, package in sorted(installed.items())
        if not (licences := licences_of(package)) & FINE and (name in given or name not in TOOLS)
    ]


def _told(flaw: Mapping[str, object]) -> str:
    fixed = flaw.get("fix_versions")
    return f"{flaw.get('id')}" + (
        f", mended in {', '.join(map(str, fixed))}" if isinstance(fixed, list) and fixed else ""
    )


def _spdx(name: str) -> str:
    return next((spdx for words, spdx in _WORDS if re.search(words, name, re.IGNORECASE)), name)


def _vulnerabilities(pip_audit: str) -> tuple[Verdict | None, str]:
    """Ask pip-audit; gives None and the reason where it did not get to an answer about anything."""
    options = ("--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json")
    command = [pip_audit, *options, "--requirement", str(ROOT / "constraints.txt")]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except FileNotFoundError:
        return None, f"there is no {pip_audit}"
    except subprocess.TimeoutExpired:
        return None, "it did not end within ten minutes"
    try:
        verdict = read_report(ran.stdout)
    except ValueError:
        return None, (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if not verdict.checked:
        return None, f"the service knows none of {len(verdict.unknown)} packages, so it is another one, or out of reach"
    return verdict, ""


def main() -> int:
    """Look at both; gives 1 where something is wrong, and with --strict also where something could not be looked at."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pip-audit", default="pip-audit", metavar="PROGRAM", help="where pip-audit is")
    parser.add_argument("--strict", action="store_true", help="fail where vulnerabilities could not be asked for")
    given = parser.parse_args()
    packages = list(distributions())
    wrong = bad_licences(packages)
    lines = [f"licences: {len(packages)} packages looked at, {len(wrong)} not known to be fine"]
    verdict, why_not = _vulnerabilities(given.pip_audit)
    if verdict is None:
        lines += ["=" * 100, f"VULNERABILITIES WERE NOT CHECKED: {why_not}", "=" * 100]
    else:
        lines.append(f"vulnerabilities: {verdict.checked} packages asked for, {len(verdict.vulnerable)} found")
        lines += [f"  not asked for: {line}" for line in verdict.unknown]
        wrong += verdict.vulnerable
    sys.stdout.writelines(f"{line}\n" for line in (*lines, *(f"  {line}" for line in wrong)))
    return 1 if wrong or (given.strict and verdict is None) else 0


if __name__ == "__main__":
    sys.exit(main())
