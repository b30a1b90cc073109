"""What deploys the functions: Terraform, the gcloud script, and the page that explains both."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

import oncetask.functions
import oncetask.http
from oncetask.http.auth import IAM, OIDC, auth_from_environment
from oncetask.http.ticking import AFTER_BUDGET
from oncetask.store.firestore.codec import Names
from oncetask.waking import CloudTasksAlarm, HttpKick, NoWaker, waker_from_environment

Calls: TypeAlias = list[list[str]]
Run: TypeAlias = Callable[..., tuple[subprocess.CompletedProcess[str], Calls]]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "gcloud.sh"
MAIN = ROOT / "functions" / "main.py"
PAGE = ROOT / "docs" / "deploy.md"
TERRAFORM = {path.name: path.read_text() for path in sorted((ROOT / "deploy" / "terraform").glob("*.tf"))}
ENTRY_POINTS = {"scheduler", "api", "on_task_created"}
CALLERS = ["web@a-project.iam.gserviceaccount.com", "batch@a-project.iam.gserviceaccount.com"]
URL = "https://us-west1-a-project.cloudfunctions.net/oncetask-production-"
TICK, RUN, EVENTS = (
    f"oncetask-production-{name}@a-project.iam.gserviceaccount.com" for name in ("tick", "run", "events")
)

FAKE = r"""#!/usr/bin/env bash
{ printf '%s\x1f' "$@"; echo; } >>"$CALLS"
case "$*" in
  *' describe '*) [[ ${THERE:-} ]] ;;
  *' get-iam-policy '*) printf '%s' "${OPEN:-}" ;;
  *'indexes composite create'*) [[ -z ${REFUSAL:-} ]] || { echo "ERROR: $REFUSAL" >&2; exit 1; } ;;
esac
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the script with a gcloud that only keeps what it was called with; options are environment variables."""
    fake, calls = tmp_path / "gcloud", tmp_path / "calls"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    (tmp_path / "sleep").symlink_to("/bin/true")

    def running(*arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], Calls]:
        calls.write_text("")
        environ = {
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(calls),
            "PROJECT": "a-project",
            "REGION": "us-west1",
            **variables,
        }
        done = subprocess.run(
            [SCRIPT, *arguments], env=environ, capture_output=True, text=True, timeout=50, check=False
        )
        return done, [line.split("\x1f")[:-1] for line in calls.read_text().splitlines()]

    return running


def flag(call: list[str], name: str) -> str:
    """Give the value of a flag."""
    (value,) = [word.removeprefix(f"--{name}=") for word in call if word.startswith(f"--{name}=")]
    return value


def that(calls: Calls, *words: str) -> Calls:
    """Give the calls that begin with these words."""
    return [call for call in calls if call[: len(words)] == list(words)]


def settings(calls: Calls) -> dict[str, dict[str, str]]:
    """Give the environment variables of each deployed entry point."""
    deployed = that(calls, "functions", "deploy")
    return {
        flag(call, "entry-point"): dict(
            pair.split("=", 1) for pair in flag(call, "set-env-vars").removeprefix("^;^").split(";")
        )
        for call in deployed
    }


def invokers(calls: Calls) -> set[tuple[str, str]]:
    """Give who was allowed to call which function."""
    return {(call[3], flag(call, "member")) for call in that(calls, "run", "services", "add-iam-policy-binding")}


def names_in(*texts: str) -> set[str]:
    """Find the environment variables of ours that texts speak of."""
    return {name for text in texts for name in re.findall(r"\bONCETASK_[A-Z_]*[A-Z]\b", text)}


def block(head: str) -> str:
    """Give the block of Terraform that begins with `head`."""
    (found,) = re.findall(rf"(?ms)^{re.escape(head)} \{{$.*?^\}}$", "\n".join(TERRAFORM.values()))
    return str(found)


# --- both, and the code ----------------------------------------------------------------------------------------------


def test_variables_are_those_of_the_code() -> None:
    """Terraform and script set all that the code reads about store, callers and waking, and nothing else."""
    package = ROOT / "oncetask"
    readers = [package / "store" / "url.py", package / "http" / "auth" / "environment.py", *package.glob("waking/*.py")]
    read = names_in(*(path.read_text() for path in readers))
    assert names_in(*TERRAFORM.values()) == names_in(SCRIPT.read_text()) == read
    assert names_in(PAGE.read_text()) <= names_in(*(path.read_text() for path in package.rglob("*.py")))


def test_entry_points_are_defined() -> None:
    """Both deploy what functions/main.py defines."""
    module = ast.parse(MAIN.read_text())
    defined = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in module.body:
        if isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    (line,) = re.findall(r"(?m)^  entry_points = (.*)$", TERRAFORM["main.tf"])
    assert set(re.findall(r'"(\w+)"', " ".join(re.findall(r"\[.*?\]", line)))) == ENTRY_POINTS <= defined
    assert set(re.findall(r"(?m)^ *deploy [a-z-]+ (\w+) ", SCRIPT.read_text())) == ENTRY_POINTS


def test_trigger_matches_the_documents() -> None:
    """The trigger's pattern is the path of a task's document in this environment."""
    path = Names("", "ENV").task("{id}").removeprefix("/documents/")
    assert f'"{path.replace("ENV", "${var.environment}")}"' in TERRAFORM["functions.tf"]
    assert f'"document={path.replace("ENV", "$ENVIRONMENT")}"' in SCRIPT.read_text()


def test_time_limits() -> None:
    """A function has longer than any tick it may be asked for: the job's, those of main.py, and two after an event."""
    calls = [node for node in ast.walk(ast.parse(MAIN.read_text())) if isinstance(node, ast.Call)]
    budgets = {ast.literal_eval(word.value) for call in calls for word in call.keywords if word.arg == "budget"}
    for function in (oncetask.functions.scheduler, oncetask.functions.on_task_created, oncetask.http.asgi_app):
        budgets |= {p.default for p in inspect.signature(function).parameters.values() if p.name == "budget"}
    (least, margin) = re.findall(
        r"tick_timeout = max\(var\.budget, (\d+)\) \+ (\d+)$", TERRAFORM["main.tf"], re.MULTILINE
    )[0]
    (event,) = re.findall(r"on_task_created = (\d+) \}", TERRAFORM["main.tf"])
    assert max(budgets) <= int(least)
    assert int(margin) > AFTER_BUDGET
    assert 2 * (max(budgets) + AFTER_BUDGET) < int(event) <= 540
    script = SCRIPT.read_text()
    assert f"timeout=$(((BUDGET > {least} ? BUDGET : {least}) + {margin}))" in script
    assert f"--timeout={event}s" in script


def test_same_roles() -> None:
    """Terraform and script grant the same roles, none of which is an editor's, an owner's or an administrator's."""
    granted = set(re.findall(r"roles/[A-Za-z.]+", "\n".join(TERRAFORM.values())))
    script = SCRIPT.read_text()
    (build,) = re.findall(r"(?m)^for role in (.*); do$", script)
    assert granted == {*re.findall(r"roles/[A-Za-z]+\.[A-Za-z]+", script), *(f"roles/{role}" for role in build.split())}
    assert not [role for role in granted if re.search(r"(?i)admin|editor|owner", role)]


def test_terraform_reads_the_definitions() -> None:
    """Indexes, exemptions and rules stand in one place, which Terraform reads and does not repeat."""
    text = TERRAFORM["firestore.tf"]
    named = re.findall(r'file\("\$\{path\.module\}/(.*?)"\)', text)
    assert {(ROOT / "deploy" / "terraform" / name).resolve() for name in named} == {
        ROOT / "firestore.indexes.json",
        ROOT / "firestore.rules",
    }
    fields = {o["fieldPath"] for o in json.loads((ROOT / "firestore.indexes.json").read_text())["fieldOverrides"]}
    assert not [field for field in fields - {"data"} if f'"{field}"' in text]


def test_nothing_secret_and_nobody_anonymous() -> None:
    """No account gets a key, and everybody may call only where oncetask itself checks who it is."""
    everything = "\n".join([*TERRAFORM.values(), SCRIPT.read_text()])
    assert not re.search(r"(?i)service_account_key|keys create|private_key|password|api_key", everything)
    assert 'var.auth == "oidc" ? ["allUsers"] : []' in TERRAFORM["accounts.tf"]
    assert "\n".join(TERRAFORM.values()).count("allUsers") == 1
    assert "--allow-unauthenticated" not in everything
    job = block('resource "google_cloud_scheduler_job" "tick"')
    assert re.search(r"(?s)oidc_token \{.*tick\.email.*audience", job)


# --- the script ------------------------------------------------------------------------------------------------------


def test_dry_run_prints_what_a_run_does(run: Run) -> None:
    """A dry run calls nothing, and prints the commands of a first run, which only asks besides."""
    variables = {"WAKING": "cloudtasks", "CREATE_DATABASE": "1", "CALLERS": ",".join(CALLERS)}
    printed, none = run("--dry-run", **variables)
    done, calls = run(**variables)
    assert (printed.returncode, none, done.returncode) == (0, [], 0), done.stderr
    asked = re.compile(r"describe|list|get-iam-policy")
    changes = [call for call in calls if not any(asked.fullmatch(word) for word in call)]
    assert [shlex.split(line)[1:] for line in printed.stdout.splitlines()] == changes
    assert f"{URL}scheduler" in done.stdout


def test_second_run_updates(run: Run) -> None:
    """What is there is kept or updated; an index that exists is fine; a function that was open is closed."""
    done, calls = run(
        WAKING="cloudtasks", CREATE_DATABASE="1", THERE="1", OPEN="roles/run.invoker", REFUSAL="ALREADY_EXISTS"
    )
    assert done.returncode == 0, done.stderr
    created = [call for call in calls if "create" in call]
    assert created == that(calls, "firestore", "indexes", "composite", "create")
    assert len(that(calls, "scheduler", "jobs", "update", "http")) == len(that(calls, "tasks", "queues", "update")) == 1
    closed = that(calls, "run", "services", "remove-iam-policy-binding")
    assert {(call[3], flag(call, "member")) for call in closed} == {
        ("oncetask-production-scheduler", "allUsers"),
        ("oncetask-production-api", "allUsers"),
    }


def test_refused_index_stops(run: Run) -> None:
    """Where an index cannot be made, no function is deployed, and the reason is told."""
    done, calls = run(REFUSAL="PERMISSION_DENIED: not you")
    assert done.returncode != 0
    assert "PERMISSION_DENIED: not you" in done.stderr
    assert not that(calls, "functions")


def test_definitions_come_from_the_file(run: Run) -> None:
    """The script makes exactly what firestore.indexes.json defines, in the database that was named."""
    _, calls = run(DATABASE="tasks")
    defined = json.loads((ROOT / "firestore.indexes.json").read_text())
    made = that(calls, "firestore", "indexes", "composite", "create")
    assert [
        [tuple(re.findall(r"=([^,=]+)(?:,|$)", word)) for word in call if "field-path" in word] for call in made
    ] == [[(f["fieldPath"], f["order"].lower()) for f in index["fields"]] for index in defined["indexes"]]
    exempt = [(flag(call, "collection-group"), call[4]) for call in that(calls, "firestore", "indexes", "fields")]
    assert exempt == [(o["collectionGroup"], o["fieldPath"]) for o in defined["fieldOverrides"]]
    expiring = [(flag(call, "collection-group"), call[4]) for call in that(calls, "firestore", "fields", "ttls")]
    assert expiring == [(o["collectionGroup"], o["fieldPath"]) for o in defined["fieldOverrides"] if o.get("ttl")]
    assert {flag(call, "database") for call in that(calls, "firestore")} == {"tasks"}
    assert {each["ONCETASK_STORE"] for each in settings(calls).values()} == {"firestore://a-project/tasks"}


@pytest.mark.parametrize(
    ("waking", "wakers"),
    [
        ("none", {"scheduler": NoWaker, "api": NoWaker}),
        ("created", {"scheduler": NoWaker, "api": NoWaker, "on_task_created": NoWaker}),
        ("http", {"scheduler": HttpKick, "api": HttpKick}),
        ("cloudtasks", {"scheduler": CloudTasksAlarm, "api": CloudTasksAlarm}),
    ],
)
@pytest.mark.parametrize(("auth", "checks"), [("iam", IAM), ("oidc", OIDC)])
def test_code_takes_the_settings(run: Run, waking: str, wakers: dict[str, type], auth: str, checks: type) -> None:
    """What the functions are told makes the wakers and checks that were asked for, and the callers fit."""
    done, calls = run(WAKING=waking, AUTH=auth, CALLERS=",".join(CALLERS), INDEXES="")
    assert done.returncode == 0, done.stderr
    told = settings(calls)
    assert {name: type(waker_from_environment(each)) for name, each in told.items()} == wakers
    expected = {name: IAM if name == "on_task_created" else checks for name in told}
    assert {name: type(auth_from_environment(each)) for name, each in told.items()} == expected
    tickers = [TICK, RUN] if waking == "http" else [TICK]
    if auth == "oidc":
        assert told["scheduler"]["ONCETASK_CALLERS"].split(",") == tickers
        assert told["api"]["ONCETASK_CALLERS"].split(",") == CALLERS
    open_to_all = {("oncetask-production-scheduler", "allUsers"), ("oncetask-production-api", "allUsers")}
    assert invokers(calls) == {
        *(("oncetask-production-scheduler", f"serviceAccount:{caller}") for caller in tickers),
        *(("oncetask-production-api", f"serviceAccount:{caller}") for caller in CALLERS),
        *(open_to_all if auth == "oidc" else ()),
        *([("oncetask-production-on-task-created", f"serviceAccount:{EVENTS}")] if waking == "created" else ()),
    }


def test_scheduler_job(run: Run) -> None:
    """The job calls the scheduler with a token that is for it, and waits as long as a tick may take."""
    _, calls = run(BUDGET="100", LINGER="30", INDEXES="")
    (job,) = that(calls, "scheduler", "jobs", "create", "http")
    assert flag(job, "uri") == f"{URL}scheduler?budget=100&linger=30"
    assert (flag(job, "oidc-service-account-email"), flag(job, "oidc-token-audience")) == (TICK, f"{URL}scheduler")
    assert flag(job, "attempt-deadline") == "115s"
    deployed = that(calls, "functions", "deploy")
    assert [flag(call, "timeout") for call in deployed] == ["115s", "115s"]
    assert all("--no-allow-unauthenticated" in call for call in deployed)
    assert all(flag(call, "run-service-account") == RUN for call in deployed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ENVIRONMENT", value) for value in ("Production", "a" * 15, "1st", "a-")),
        *(("BUDGET", value) for value in ("0", "1786", "-1", "1.5", "x")),
        ("LINGER", "-1"),
        ("CONCURRENCY", "0"),
        ("WAKING", "pubsub"),
        ("AUTH", "nobody"),
        ("PROJECT", ""),
    ],
)
def test_bad_variables(run: Run, name: str, value: str) -> None:
    """A wrong variable is named, and nothing is called."""
    done, calls = run(**{name: value})
    assert done.returncode != 0
    assert calls == []
    assert name in done.stderr
    assert value in done.stderr


def test_bad_use(run: Run) -> None:
    """An unknown option is refused, and so is a check of callers without any callers."""
    assert "--dry-run, not: --dryrun" in run("--dryrun")[0].stderr
    assert "CALLERS must not be empty" in run(AUTH="oidc")[0].stderr


# --- the page --------------------------------------------------------------------------------------------------------


def test_page_names_what_exists() -> None:
    """Files that the page's links and commands name are there, and so are the variables that it sets."""
    page = PAGE.read_text()
    links = [ROOT / "docs" / link for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page)]
    commands = "\n".join(re.findall(r"(?ms)^```(?:console|bash|sh)$(.*?)^```$", page))
    paths = [
        ROOT / name
        for name in re.findall(r"(?<![\w/.-])(?:deploy|functions|docs|firestore)[\w./-]*/[\w./-]*\w", commands)
    ]
    assert links
    assert paths
    assert not [path for path in links + paths if not path.exists()]
    variables = set(re.findall(r'(?m)^variable "(\w+)"', TERRAFORM["variables.tf"]))
    assert set(re.findall(r"-var[ =](\w+)=", page)) <= variables
    script = set(re.findall(r"(?m)^([A-Z_]+)=\$\{", SCRIPT.read_text()))
    assigned = re.findall(r"(?m)^(?:[A-Z_]+=\S+ )+(?=deploy/gcloud\.sh)", commands)
    assert {name for line in assigned for name in re.findall(r"([A-Z_]+)=", line)} <= script
