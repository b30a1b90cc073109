"""What the demo's tasks compute, and which files they are given."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask.cli.demo import work
from oncetask.cli.demo.files import find_files
from oncetask.cli.demo.work import MeasureFile, measure


class InPieces(io.BytesIO):
    """A file that gives less than it is asked for."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        """Give the next piece."""
        return super().read(min(self._size, size or self._size))


@given(st.binary(max_size=200) | st.text(" \n\tab", max_size=200).map(str.encode), st.integers(1, 50))
def test_pieces_change_nothing(content: bytes, size: int) -> None:
    """However a file is cut into chunks, words that straddle two of them count once."""
    assert measure(InPieces(content, size)) == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "lines": content.count(b"\n"),
        "words": len(content.split()),
    }


@pytest.mark.skipif(shutil.which("wc") is None, reason="there is no wc here")
def test_lines_and_words_are_those_of_wc(tmp_path: Path) -> None:
    """`wc` counts the same, also without a newline at the end."""
    file = tmp_path / "text"
    file.write_bytes(b"one  two\n\n three\tfour\nfive")
    counted = subprocess.run(["wc", "-lw", file], capture_output=True, text=True, check=True)  # noqa: S607  # whichever there is
    with file.open("rb") as opened:
        measured = measure(opened)
    assert counted.stdout.split()[:2] == [str(measured["lines"]), str(measured["words"])]


def test_a_large_file_is_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between chunks the handler can be told to stop."""
    monkeypatch.setattr(work, "_CHUNK_BYTES", 10)
    calls: list[int] = []
    measure(io.BytesIO(b"x" * 95), between=lambda: calls.append(1))
    assert len(calls) == 10


@pytest.mark.parametrize("name", ["plain", "new\nline", "100%20", "é", os.fsdecode(b"\xff\xfe"), "a?b#c", "a;b"])
def test_any_path_survives_as_json(name: str) -> None:
    """A payload holds paths that no JSON text could, and gives them back."""
    payload = MeasureFile(run="r", number=1, uri=(Path("/some") / name).as_uri())
    assert MeasureFile.from_data(payload.to_data()).path == Path("/some") / name


def test_the_files_of_a_folder_are_found_in_order(tmp_path: Path) -> None:
    """Files are named by their path below the folder; a folder's own come before those below it."""
    for name in ("b", "a/z", "a/y", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = find_files(tmp_path, most=10)
    assert [file.name for file in found.files] == ["b", "a/y", "a/z", "c/d/e"]
    assert (found.skipped, found.more) == ([], False)
    assert find_files(tmp_path, most=4).more is False
    assert find_files(tmp_path, most=3).more is True


def test_what_may_not_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without permission is named, not tried."""
    (tmp_path / "secret").write_text("x")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert find_files(tmp_path, most=10).skipped == ["secret: may not be read"]


def test_a_folder_that_may_not_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subfolder that refuses to be listed is named, and the rest goes on."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").write_text("x")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_files(tmp_path, most=10)
    assert ([file.name for file in found.files], found.skipped) == (["open"], ["closed: Permission denied"])


def test_a_change_is_noticed(tmp_path: Path) -> None:
    """A file that was written to, or removed, is not the one that was found."""
    path = tmp_path / "log"
    path.write_text("x")
    (file,) = find_files(tmp_path, most=1).files
    assert file.is_unchanged()
    path.write_text("more")
    assert not file.is_unchanged()
    path.unlink()
    assert not file.is_unchanged()
