"""Finds, starts and stops the Firestore emulator, for tests and benchmarks.

``locate`` looks in this order: ``FIRESTORE_EMULATOR_HOST`` (one that runs already), the jar named by
``ONCETASK_EMULATOR_JAR``, the gcloud SDK, the cache of firebase-tools. ``running_emulator`` starts what was
found and takes it down again, also when this process is killed.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SDK_PLACES: Sequence[Path] = tuple(
    Path(place)
    for place in (
        "/usr/lib/google-cloud-sdk",
        "/usr/lib64/google-cloud-sdk",
        "/usr/share/google-cloud-sdk",
        "/usr/local/google-cloud-sdk",
        "/opt/google-cloud-sdk",
        "/snap/google-cloud-sdk/current",
        "/snap/google-cloud-cli/current",
        "/opt/homebrew/share/google-cloud-sdk",
        "/usr/local/share/google-cloud-sdk",
        "/opt/homebrew/Caskroom/google-cloud-sdk/latest/google-cloud-sdk",
        "/usr/local/Caskroom/google-cloud-sdk/latest/google-cloud-sdk",
    )
)
"""Where package managers put the gcloud SDK."""

START_TIMEOUT = 45.0
"""Seconds until an emulator that does not answer is given up; it is usually ready in 1.5 to 5."""

# The shell has the JVM as its child, and reads from a pipe whose other end only our process has. The pipe
# ends with us, however we end, and the JVM with the pipe. The JVM's exit code becomes the shell's.
_KEEP_WHILE_WE_LIVE = """
exec 3<&0
"$@" 3<&- </dev/null &
jvm=$!
{ read -r _; kill -9 "$jvm"; } <&3 2>/dev/null &
watch=$!
wait "$jvm"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""


@dataclass(frozen=True)
class Running:
    """An emulator that somebody else has started and will stop."""

    host: str


@dataclass(frozen=True)
class Startable:
    """An emulator that can be started here."""

    java: Path
    jar: Path


@dataclass(frozen=True)
class Missing:
    """No emulator; ``reason`` says in words what was looked for and not found."""

    reason: str


Location = Running | Startable | Missing


class EmulatorError(RuntimeError):
    """The emulator is missing, or did not come up; the message carries what the JVM said."""


def locate(
    environ: Mapping[str, str],
    *,
    home: Path | None = None,
    sdk_places: Sequence[Path] = SDK_PLACES,
) -> Location:
    """Says which emulator the environment offers; starts nothing.

    Args:
        environ: the environment to look in.
        home: the home folder; by default ``HOME`` of ``environ``.
        sdk_places: where a gcloud SDK may lie that is not on ``PATH``.
    """
    if host := environ.get("FIRESTORE_EMULATOR_HOST"):
        return Running(host)
    home = home or Path(environ.get("HOME") or "~").expanduser()
    java = _find_java(environ)
    jar, jar_problem = _find_jar(environ, home, sdk_places)
    if java and jar:
        return Startable(java, jar)
    problems = ["" if java else "no Java on PATH", jar_problem]
    return Missing("; ".join(filter(None, problems)))


def _find_java(environ: Mapping[str, str]) -> Path | None:
    if java_home := environ.get("JAVA_HOME"):
        java = Path(java_home, "bin", "java")
        if os.access(java, os.X_OK):
            return java
    return _which("java", environ)


def _find_jar(environ: Mapping[str, str], home: Path, sdk_places: Sequence[Path]) -> tuple[Path | None, str]:
    """The emulator's jar, or what to tell the user."""
    if named := environ.get("ONCETASK_EMULATOR_JAR"):
        jar = Path(named)
        return (jar, "") if jar.is_file() else (None, f"ONCETASK_EMULATOR_JAR names {jar}, which is no file")
    for folder in _jar_folders(environ, home, sdk_places):
        if jars := sorted(folder.glob("cloud-firestore-emulator*.jar"), key=_version):
            return jars[-1], ""
    return None, (
        "no emulator jar in ONCETASK_EMULATOR_JAR, a gcloud SDK "
        "(`gcloud components install cloud-firestore-emulator`) or the cache of firebase-tools"
    )


def _jar_folders(environ: Mapping[str, str], home: Path, sdk_places: Sequence[Path]) -> Iterator[Path]:
    for sdk in _sdk_roots(environ, home, sdk_places):
        yield sdk / "platform" / "cloud-firestore-emulator"
    if cache := environ.get("FIREBASE_EMULATORS_PATH"):
        yield Path(cache)
    yield home / ".cache" / "firebase" / "emulators"


def _sdk_roots(environ: Mapping[str, str], home: Path, sdk_places: Sequence[Path]) -> Iterator[Path]:
    if gcloud := _which("gcloud", environ):
        yield gcloud.resolve().parent.parent
    if root := environ.get("CLOUDSDK_ROOT_DIR"):
        yield Path(root)
    yield home / "google-cloud-sdk"
    yield from sdk_places


def _which(command: str, environ: Mapping[str, str]) -> Path | None:
    found = shutil.which(command, path=environ.get("PATH", ""))
    return Path(found) if found else None


def _version(jar: Path) -> tuple[int, ...]:
    """``cloud-firestore-emulator-v1.19.10.jar`` is newer than ``…-v1.19.9.jar``."""
    return tuple(int(number) for number in re.findall(r"\d+", jar.name))


@contextmanager
def running_emulator(
    location: Location | None = None,
    *,
    rules: Path | None = None,
    heap_megabytes: int = 768,
) -> Iterator[str]:
    """Gives ``host:port`` of an emulator that answers, and stops it at the end if it was started here.

    Args:
        location: which one; by default what ``locate`` finds in ``os.environ``.
        rules: security rules to start with; not for one that runs already.
        heap_megabytes: upper bound of the JVM's heap.

    Raises:
        EmulatorError: there is none, or it ended or kept silent while it was awaited.
    """
    location = location or locate(os.environ)
    if isinstance(location, Missing):
        raise EmulatorError(f"The Firestore emulator is not available: {location.reason}.")
    if isinstance(location, Running):
        yield location.host
        return
    port = _free_port()
    command = [
        str(location.java),
        f"-Xmx{heap_megabytes}m",
        "-cp",
        str(location.jar),
        "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
        *("start", "--host", "127.0.0.1", "--port", str(port)),
        *(("--rules", str(rules)) if rules else ()),
    ]
    with tempfile.TemporaryFile() as log, _process(command, log) as process:
        _await_answer(process, port, log)
        yield f"127.0.0.1:{port}"


@contextmanager
def _process(command: Sequence[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``command`` until the block, or this process, ends."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", _KEEP_WHILE_WE_LIVE, "emulator", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the tests; the emulator ends when they are through
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=10)


def _await_answer(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT
    while not _answers(port):
        if time.monotonic() > give_up_at:
            raise EmulatorError(f"The emulator did not answer within {START_TIMEOUT:g} s. {_said(log)}")
        try:
            code = process.wait(timeout=0.05)  # the pause between two looks, over at once if it ends
        except subprocess.TimeoutExpired:
            continue
        raise EmulatorError(f"The emulator ended with code {code} while it was starting. {_said(log)}")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _said(log: IO[bytes]) -> str:
    log.seek(0)
    return "It said:\n" + (log.read().decode(errors="replace").strip() or "(nothing)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
