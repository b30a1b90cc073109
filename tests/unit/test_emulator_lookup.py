"""How the Firestore emulator is found, and what becomes of the tests that need it where it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oncetask.cli.dev import emulator
from tests.emulator import EmulatorError, Missing, Running, Startable, locate, running_emulator

ROOT = Path(__file__).parents[2]


def executable(path: Path, script: str = "#!/bin/sh\n") -> Path:
    """A program at ``path``, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    return path


def file(path: Path) -> Path:
    """An empty file at ``path``, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def sdk_jar(sdk: Path) -> Path:
    """The emulator's jar in a gcloud SDK."""
    return file(sdk / "platform" / "cloud-firestore-emulator" / "cloud-firestore-emulator.jar")


def firebase_jar(home: Path, version: str) -> Path:
    """The emulator's jar in the cache of firebase-tools."""
    return file(home / ".cache" / "firebase" / "emulators" / f"cloud-firestore-emulator-v{version}.jar")


class TestLocate:
    """``locate`` is a function of an environment and of what lies on the disk."""

    @pytest.fixture
    def environ(self, tmp_path: Path) -> dict[str, str]:
        """An environment with a Java on its PATH, and nothing else."""
        executable(tmp_path / "bin" / "java")
        return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}

    def test_running_one_is_used(self, environ: dict[str, str]) -> None:
        """FIRESTORE_EMULATOR_HOST goes before everything that could be started."""
        environ |= {"FIRESTORE_EMULATOR_HOST": "127.0.0.1:9", "ONCETASK_EMULATOR_JAR": "/no/such.jar"}
        assert locate(environ) == Running("127.0.0.1:9")

    def test_named_jar_wins(self, environ: dict[str, str], tmp_path: Path) -> None:
        """ONCETASK_EMULATOR_JAR goes before any SDK."""
        sdk_jar(tmp_path / "home" / "google-cloud-sdk")
        environ["ONCETASK_EMULATOR_JAR"] = str(file(tmp_path / "my.jar"))
        assert locate(environ) == Startable(tmp_path / "bin" / "java", tmp_path / "my.jar")

    def test_named_jar_has_to_exist(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A wrong ONCETASK_EMULATOR_JAR is reported, not passed over for another jar."""
        sdk_jar(tmp_path / "home" / "google-cloud-sdk")
        environ["ONCETASK_EMULATOR_JAR"] = "/no/such.jar"
        assert locate(environ) == Missing("ONCETASK_EMULATOR_JAR names /no/such.jar, which is no file")

    def test_sdk_of_the_gcloud_on_the_path(self, environ: dict[str, str], tmp_path: Path) -> None:
        """The link of gcloud on PATH leads to its SDK, which goes before the usual places."""
        jar = sdk_jar(tmp_path / "somewhere" / "sdk")
        sdk_jar(tmp_path / "home" / "google-cloud-sdk")
        gcloud = executable(tmp_path / "somewhere" / "sdk" / "bin" / "gcloud")
        (tmp_path / "bin" / "gcloud").symlink_to(gcloud)
        assert locate(environ) == Startable(tmp_path / "bin" / "java", jar)

    def test_sdk_without_the_emulator_is_passed_over(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A gcloud that lacks the emulator component does not hide another SDK that has it."""
        executable(tmp_path / "bin" / "gcloud")
        jar = sdk_jar(tmp_path / "home" / "google-cloud-sdk")
        assert locate(environ) == Startable(tmp_path / "bin" / "java", jar)

    def test_sdk_root_from_the_environment(self, environ: dict[str, str], tmp_path: Path) -> None:
        """CLOUDSDK_ROOT_DIR names an SDK."""
        jar = sdk_jar(tmp_path / "root")
        environ["CLOUDSDK_ROOT_DIR"] = str(tmp_path / "root")
        assert locate(environ) == Startable(tmp_path / "bin" / "java", jar)

    def test_sdk_in_a_usual_place(self, environ: dict[str, str], tmp_path: Path) -> None:
        """An SDK is found where package managers put it."""
        jar = sdk_jar(tmp_path / "opt")
        found = locate(environ, sdk_places=[tmp_path / "nothing", tmp_path / "opt"])
        assert found == Startable(tmp_path / "bin" / "java", jar)

    def test_newest_of_firebase_tools(self, environ: dict[str, str], tmp_path: Path) -> None:
        """Of several jars in the cache of firebase-tools the one with the highest version is taken."""
        firebase_jar(tmp_path / "home", "1.19.9")
        newest = firebase_jar(tmp_path / "home", "1.19.10")
        firebase_jar(tmp_path / "home", "1.4.6")
        assert locate(environ, sdk_places=()) == Startable(tmp_path / "bin" / "java", newest)

    def test_java_home_goes_before_the_path(self, environ: dict[str, str], tmp_path: Path) -> None:
        """JAVA_HOME names the Java to use, if one is there."""
        java = executable(tmp_path / "jdk" / "bin" / "java")
        jar = firebase_jar(tmp_path / "home", "1.19.9")
        environ["JAVA_HOME"] = str(tmp_path / "jdk")
        assert locate(environ, sdk_places=()) == Startable(java, jar)

    def test_missing_java(self, tmp_path: Path) -> None:
        """A jar without Java is no emulator, and the reason says so."""
        firebase_jar(tmp_path, "1.19.9")
        assert locate({"PATH": ""}, home=tmp_path, sdk_places=()) == Missing("no Java on PATH")

    def test_missing_jar(self, environ: dict[str, str]) -> None:
        """Java without a jar is no emulator, and the reason names the places that could have one."""
        found = locate(environ, sdk_places=())
        assert isinstance(found, Missing)
        assert found.reason.startswith("no emulator jar in ONCETASK_EMULATOR_JAR, a gcloud SDK")

    def test_everything_missing(self, tmp_path: Path) -> None:
        """Both reasons are given at once, so that nobody has to come back for the second."""
        found = locate({}, home=tmp_path, sdk_places=())
        assert isinstance(found, Missing)
        assert found.reason.startswith("no Java on PATH; no emulator jar")


class TestRunning:
    """``running_emulator`` starts loudly and leaves nothing behind."""

    def test_running_one_is_left_alone(self) -> None:
        """An emulator that somebody else runs is handed out as it is."""
        with running_emulator(Running("127.0.0.1:9")) as host:
            assert host == "127.0.0.1:9"

    def test_missing_is_an_error(self) -> None:
        """Who insists on an emulator is told why there is none."""
        missing = Missing("no Java on PATH")
        with pytest.raises(EmulatorError, match="no Java on PATH"), running_emulator(missing):
            pass

    def test_failure_carries_what_was_said(self, tmp_path: Path) -> None:
        """A JVM that ends at once is reported with its exit code and its output."""
        java = executable(
            tmp_path / "java",
            f"#!/bin/sh\necho >> {tmp_path}/calls\necho 'Unsupported class file version' >&2\nexit 3\n",
        )
        with (
            pytest.raises(EmulatorError, match=r"code 3 (.|\n)*Unsupported class file version"),
            running_emulator(Startable(java, tmp_path / "jar")),
        ):
            pass
        assert (tmp_path / "calls").read_text().splitlines() == [""]  # it would not help to try again

    @pytest.mark.parametrize(("port", "ports"), [(None, 3), (4_711, 1)])
    def test_a_port_that_is_taken_meanwhile(self, tmp_path: Path, port: int | None, ports: int) -> None:
        """It is tried three times, each time at another port unless the caller has named one."""
        java = executable(
            tmp_path / "java", f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho java.net.BindException >&2\nexit 1\n'
        )
        with (
            pytest.raises(EmulatorError, match=r"code 1 (.|\n)*BindException"),
            running_emulator(Startable(java, tmp_path / "jar"), port=port),
        ):
            pass
        calls = (tmp_path / "calls").read_text().splitlines()
        assert len(calls) == 3
        assert len({call.rpartition(" ")[2] for call in calls}) == ports

    def test_silence_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A JVM that never answers is given up after START_TIMEOUT, and does not live on."""
        monkeypatch.setattr(emulator, "START_TIMEOUT", 0.2)
        java = executable(tmp_path / "java", f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec tail -f /dev/null\n")
        silent = Startable(java, tmp_path / "jar")
        with pytest.raises(EmulatorError, match=r"within 0\.2 s"), running_emulator(silent):
            pass
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_ends_with_its_owner(self, tmp_path: Path) -> None:
        """What was started ends when the process that started it is killed, which can clean nothing up."""
        program = (
            "import sys, tempfile\n"
            "from oncetask.cli.dev.emulator import _process\n"
            "with tempfile.TemporaryFile() as log, _process(['/bin/sh', '-c', sys.argv[1]], log):\n"
            "    sys.stdin.read()\n"
        )
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        script = f"exec >'{fifo}'; echo started; exec tail -f /dev/null"
        command = [sys.executable, "-c", program, script]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as owner, fifo.open() as child:
            assert child.readline() == "started\n"
            owner.send_signal(signal.SIGKILL)
            assert child.read() == ""  # ends when the last process that could write has ended


class TestPlugin:
    """What a test session does with and without an emulator."""

    @pytest.fixture
    def session(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
        """A session with two emulator tests and a plain one, where there is no Java and ``CI`` is not set."""
        monkeypatch.setenv("PATH", "")
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.delenv("CI", raising=False)
        pytester.syspathinsert(ROOT)
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        pytester.makepyfile(
            """
            import pytest

            @pytest.mark.emulator
            def test_marked():
                pass

            def test_using(emulator_host):
                assert emulator_host == "127.0.0.1:9"

            def test_plain():
                pass
            """
        )
        return pytester

    def test_skipped_with_the_reason_last(self, session: pytest.Pytester) -> None:
        """Without an emulator its tests are skipped, and the last line says how many and why."""
        result = session.runpytest_inprocess("-p", "tests.emulator_plugin")
        result.assert_outcomes(passed=1, skipped=2)
        *_, closing, last = result.outlines
        assert "1 passed, 2 skipped in" in closing
        assert last.startswith("2 tests that need the Firestore emulator were skipped: no Java on PATH")
        assert "emulator tests run: 0" in result.outlines

    @pytest.mark.parametrize("value", ["true", "1", "yes"])
    def test_failed_in_ci(self, session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """Where CI is set a missing emulator is a failure, with the same words at the end."""
        monkeypatch.setenv("CI", value)
        result = session.runpytest_inprocess("-p", "tests.emulator_plugin")
        result.assert_outcomes(passed=1, errors=2)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert result.outlines[-1].startswith(
            "2 tests that need the Firestore emulator failed, because CI is set: no Java on PATH"
        )

    @pytest.mark.parametrize("value", ["", "0", "false", "False"])
    def test_ci_that_is_off(self, session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """An empty CI, and one that says no, is none."""
        monkeypatch.setenv("CI", value)
        session.runpytest_inprocess("-p", "tests.emulator_plugin").assert_outcomes(passed=1, skipped=2)

    def test_one_is_told_in_the_singular(self, session: pytest.Pytester) -> None:
        """One skipped test is "1 test that needs ... was skipped"."""
        result = session.runpytest_inprocess("-p", "tests.emulator_plugin", "-k", "test_marked")
        assert result.outlines[-1].startswith("1 test that needs the Firestore emulator was skipped: ")

    def test_with_one(self, session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """With an emulator all tests run, they are counted, and pytest's closing line is the last."""
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
        result = session.runpytest_inprocess("-p", "tests.emulator_plugin")
        result.assert_outcomes(passed=3)
        assert "emulator tests run: 2" in result.outlines
        assert "3 passed in" in result.outlines[-1]

    def test_users_of_the_fixture_are_marked(self, session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """``-m emulator`` selects a test that only asks for the fixture."""
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
        result = session.runpytest_inprocess("-p", "tests.emulator_plugin", "-m", "emulator")
        result.assert_outcomes(passed=2, deselected=1)


@pytest.mark.emulator
def test_each_test_has_a_project(firestore_environment: dict[str, str], project_id: str) -> None:
    """A subprocess is led to the emulator and to this test's own project."""
    assert firestore_environment["GOOGLE_CLOUD_PROJECT"] == project_id
    assert firestore_environment["FIRESTORE_EMULATOR_HOST"].startswith("127.0.0.1:")
