"""Has every Python process that a test starts note its queries too: Python imports this by itself at its start.

The session puts this folder on `PYTHONPATH` for that. `tests` need not be importable there, so the recorder is found by
its place.
"""
# ruff: noqa: INP001  # Python looks for this module in a folder, not in a package

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

if folder := os.environ.get("SENT_QUERIES"):
    place = Path(__file__).resolve().parents[1] / "recorder.py"
    spec = spec_from_file_location("_recorder_of_sent_queries", place)
    assert spec is not None
    assert spec.loader is not None
    recorder = module_from_spec(spec)
    spec.loader.exec_module(recorder)
    recorder.record_to(folder)
