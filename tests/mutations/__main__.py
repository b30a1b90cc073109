"""Makes each mistake of the catalogue in a copy of the source, and tells whether a test fails: `make mutations`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutations.catalogue import MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.mutations.catalogue import Mutation

_ROOT = Path(__file__).parents[2]
_COPIED = ("oncetask", "tests", "benchmarks", "examples", "functions", "pyproject.toml", "firestore.indexes.json")
_FAILURE = re.compile(r"^FAILED (\S+)", re.MULTILINE)


def _pytest(folder: Path, tests: Iterable[str], *, first: bool) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile"]
    command += ["-p", "no:cacheprovider", *(["--exitfirst"] if first else []), *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / ".hypothesis")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # ours


def _try(folder: Path, mutation: Mutation) -> str | None:
    """Make one mistake, run its tests, mend it; gives the test that failed, None where none did."""
    path = folder / mutation.file
    source = path.read_text()
    if source.count(mutation.line) != 1:
        sys.exit(f"{mutation.name}: {mutation.file} has the line {source.count(mutation.line)} times, not once")
    path.write_text(source.replace(mutation.line, mutation.mistake))
    try:
        ran = _pytest(folder, mutation.tests, first=True)
    finally:
        path.write_text(source)
    failures = _FAILURE.findall(ran.stdout)
    if ran.returncode != 0 and not failures:
        sys.exit(f"{mutation.name}: the tests did not run\n{ran.stdout[-4_000:]}{ran.stderr[-2_000:]}")
    return failures[0] if failures else None


def main() -> int:
    """Try them all, and say which went unnoticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name or file contains this text")
    parser.add_argument("--no-control", action="store_true", help="do not run the tests without a mistake first")
    options = parser.parse_args()
    chosen = [one for one in MUTATIONS if options.only in one.name or options.only in one.file]
    noticed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in _COPIED:
            source = _ROOT / entry
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / entry)
        if not options.no_control:
            tests = sorted({test for one in chosen for test in one.tests})
            control = _pytest(folder, tests, first=False)
            if control.returncode != 0:
                sys.exit(f"the tests fail without any mistake:\n{control.stdout[-4_000:]}")
            sys.stdout.write(f"without a mistake {len(tests)} files and folders of tests pass\n")
        for one in chosen:
            failure = _try(folder, one)
            noticed += failure is not None
            sys.stdout.write(f"{'noticed' if failure else 'MISSED '}  {one.file}: {one.name}\n")
            sys.stdout.write(f"         {failure or 'nothing failed'}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{noticed} of {len(chosen)} noticed\n")
    return 0 if noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
