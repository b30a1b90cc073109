"""What holds for every test: a clean environment, a free event loop, an emulator for those who ask."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import blockbuster.blockbuster as blockbuster_module
import pytest
from blockbuster import BlockingError, blockbuster_ctx
from hypothesis import settings

pytest_plugins = ["tests.emulator_plugin", "tests.index_plugin"]

settings.register_profile("oncetask", deadline=None)  # no test asserts a speed
settings.load_profile("oncetask")

FOREIGN_PREFIXES = (
    "CLOUDSDK_",
    "CLOUD_RUN_",
    "FIREBASE_",
    "FIRESTORE_",
    "FUNCTION_",
    "GCE_",
    "GCLOUD_",
    "GCP_",
    "GOOGLE_",
    "KUBERNETES_",
    "K_",
    "ONCETASK_",
)
"""Variables that decide where oncetask works or how it behaves; a test sets those that it means."""

MAY_BLOCK = (
    ("<frozen importlib._bootstrap>", "_find_and_load"),  # a module is imported once, not per task
    ("google/cloud/firestore_v1/services/firestore/client.py", "__init__"),  # looks for a certificate, once
    ("oncetask/recurrence/wallclock.py", "__init__"),  # the file of a zone is read once, not per task
    ("logging/__init__.py", "emit"),  # where log lines go is the user's choice; here pytest keeps them
)
"""Where oncetask may block the loop: the end of a file's name, and a function in it that is being called."""


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many processes as there are processors: most tests wait for timers, and for other processes."""
    return 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the developer's shell, account or cloud reaches a test."""
    for name in os.environ:
        if name.startswith(FOREIGN_PREFIXES) or name == "PORT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(_empty_folder(tmp_path_factory)))  # no credentials of gcloud
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # google.auth asks no metadata server


def _empty_folder(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "no-gcloud-configuration"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _free_event_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test in which oncetask blocks the event loop, even where the error was caught on its way.

    Only calls from within the package count: what a test does around it is its own business.
    """
    blocked: list[str] = []

    class Recorded(BlockingError):
        def __init__(self, func: str) -> None:
            super().__init__(func)
            blocked.append(func)

    monkeypatch.setattr(blockbuster_module, "BlockingError", Recorded)
    with blockbuster_ctx(scanned_modules="oncetask") as detector:
        for function, place in itertools.product(detector.functions.values(), MAY_BLOCK):
            function.can_block_in(*place)
        yield
    if blocked:
        pytest.fail(f"The event loop was blocked by {', '.join(sorted(set(blocked)))}.", pytrace=False)
