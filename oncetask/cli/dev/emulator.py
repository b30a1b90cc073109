"""Finds, starts and stops the Firestore emulator: for `oncetask dev`, and for the tests of oncetask itself.

`locate` looks in this order: FIRESTORE_EMULATOR_HOST (one that runs already), the jar named by ONCETASK_EMULATOR_JAR,
the gcloud SDK, the cache of firebase-tools. `running_emulator` starts what was found and takes it down again, also when
this process is killed.
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
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from oncetask.errors import OncetaskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "SDK_PLACES",
    "EmulatorError",
    "Location",
    "Missing",
    "Running",
    "Startable",
    "answers",
    "free_port",
    "locate",
    "running_emulator",
]

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

_LAST_SECONDS = 10.0
_ATTEMPTS = 3

# The shell has the JVM as its child, and reads from a pipe whose other end only our process has. The pipe ends with us,
# however we end, and the JVM with the pipe. The JVM's exit code becomes the shell's.
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


@dataclass(frozen=True, slots=True)
class Running:
    """An emulator that somebody else has started and will stop."""

    host: str
    """`host:port`."""


@dataclass(frozen=True, slots=True)
class Startable:
    """An emulator that can be started here."""

    java: Path
    jar: Path


@dataclass(frozen=True, slots=True)
class Missing:
    """No emulator."""

    reason: str
    """What was looked for and not found."""


Location = Running | Startable | Missing


class EmulatorError(OncetaskError):
    """The emulator is missing, or did not come up; the message carries what the JVM said."""


class _PortTakenError(EmulatorError):
    """It ended because somebody had its port."""


def locate(
    environ: Mapping[str, str], *, home: Path | None = None, sdk_places: Sequence[Path] = SDK_PLACES
) -> Location:
    """Say which emulator an environment offers; starts nothing.

    `home`: the home folder; left out, HOME of `environ`. `sdk_places`: where a gcloud SDK may lie that is not on PATH.
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


@contextmanager
def running_emulator(
    location: Location | None = None,
    *,
    rules: Path | None = None,
    export: Path | None = None,
    port: int | None = None,
    functions: str | None = None,
    heap_megabytes: int = 768,
) -> Iterator[str]:
    """Give `host:port` of an emulator that answers, and stop it in the end if it was started here.

    `location`: which one; left out, what `locate` finds in this process's environment. What follows is for one that is
    started: `rules`, the file of its security rules; `export`, the metadata file of an export that it starts with;
    `port`, left out a free one; `functions`, the `host:port` to which it posts the events of triggers;
    `heap_megabytes`, the upper bound of the JVM's heap.

    Raises EmulatorError where there is none, or it ends or keeps silent while it is awaited.
    """
    location = location or locate(os.environ)
    if isinstance(location, Missing):
        raise EmulatorError(f"The Firestore emulator is not available: {location.reason}.")
    if isinstance(location, Running):
        yield location.host
        return
    options = (
        *(("--rules", str(rules)) if rules else ()),
        *(("--seed_from_export", str(export)) if export else ()),
        *(("--functions_emulator", functions) if functions else ()),
    )
    # A port that was free a moment ago may go to another program, or to one of the emulator's own three others.
    patiently = Retrying(
        retry=retry_if_exception_type(_PortTakenError), stop=stop_after_attempt(_ATTEMPTS), reraise=True
    )
    with ExitStack() as running:
        yield patiently(_start, running, location, heap_megabytes, options, port)


def _start(
    running: ExitStack, location: Startable, heap_megabytes: int, options: Sequence[str], port: int | None
) -> str:
    """Start one that `running` will end, and give `host:port` once it answers."""
    port = port or free_port()
    command = [
        str(location.java),
        f"-Xmx{heap_megabytes}m",
        "-cp",
        str(location.jar),
        "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
        *("start", "--host", "127.0.0.1", "--port", str(port), *options),
    ]
    with ExitStack() as starting:
        log = starting.enter_context(tempfile.TemporaryFile())
        process = starting.enter_context(_process(command, log))
        _await_answer(process, port, log)
        running.push(starting.pop_all())
    return f"127.0.0.1:{port}"


def answers(host: str) -> bool:
    """Tell whether an emulator answers at `host:port`."""
    try:
        with closing(http.client.HTTPConnection(host, timeout=2)) as connection:
            connection.request("GET", "/")
            return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def free_port() -> int:
    """Give a port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _find_java(environ: Mapping[str, str]) -> Path | None:
    if java_home := environ.get("JAVA_HOME"):
        java = Path(java_home, "bin", "java")
        if os.access(java, os.X_OK):
            return java
    return _which("java", environ)


def _find_jar(environ: Mapping[str, str], home: Path, sdk_places: Sequence[Path]) -> tuple[Path | None, str]:
    """Give the emulator's jar, or what to tell the user."""
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
    """Order by number: `cloud-firestore-emulator-v1.19.10.jar` is newer than `…-v1.19.9.jar`."""
    return tuple(int(number) for number in re.findall(r"\d+", jar.name))


@contextmanager
def _process(command: Sequence[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block, or this process, ends."""
    process = subprocess.Popen(  # noqa: S603  # the command is the one above
        ["/bin/sh", "-c", _KEEP_WHILE_WE_LIVE, "emulator", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us; the emulator ends when we are through
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=_LAST_SECONDS)


def _await_answer(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT
    while not answers(f"127.0.0.1:{port}"):
        if time.monotonic() > give_up_at:
            raise EmulatorError(f"The emulator did not answer within {START_TIMEOUT:g} s. {_said(log)}")
        try:
            code = process.wait(timeout=0.05)  # the pause between two looks, over at once if it ends
        except subprocess.TimeoutExpired:
            continue
        said = _said(log)
        kind = _PortTakenError if "BindException" in said else EmulatorError
        raise kind(f"The emulator ended with code {code} while it was starting. {said}")


def _said(log: IO[bytes]) -> str:
    log.seek(0)
    return "It said:\n" + (log.read().decode(errors="replace").strip() or "(nothing)")
