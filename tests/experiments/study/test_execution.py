"""Jobs run one after the other; a failure stops only the jobs that need it."""

import dataclasses
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest

from experiments.study import record
from experiments.study.execution import Outcome, execute
from experiments.study.plan import Job, RunOf


@dataclasses.dataclass(frozen=True)
class Scripted(Job):
    """A job whose command is a line of Python, run by the standard library."""

    code: str = "pass"

    def command(self, root: Path) -> list[str]:
        result = f"open({str(root / self.name)!r}, 'w').close()"
        return ["timeit", "-n1", "-r1", f"{self.code}\n{result}"]

    def is_done(self, root: Path) -> bool:
        return (root / self.name).exists()


def scripted(name: str, code: str = "pass", *needs: str) -> Scripted:
    flags = {f"flag_{need}": RunOf(need) for need in needs}
    return Scripted(name, "ll", flags, code=code)


def test_a_failure_stops_only_those_that_need_it(tmp_path):
    jobs = [
        scripted("good"),
        scripted("bad", "raise ValueError('this went wrong')"),
        scripted("after bad", "pass", "bad"),
        scripted("after that", "pass", "after bad"),
        scripted("after good", "pass", "good"),
    ]
    reported = []
    outcomes = execute(jobs, tmp_path, lambda job, outcome: reported.append(job.name))
    assert reported == list(outcomes) == [job.name for job in jobs]
    states = [outcome.state for outcome in outcomes.values()]
    assert states == ["finished", "failed", "not run", "not run", "finished"]
    assert outcomes["bad"].reason == "ValueError: this went wrong"
    assert outcomes["after bad"].reason == "needs bad"
    assert outcomes["good"].seconds is not None
    assert "Traceback" in (tmp_path / "logs" / "bad.log").read_text()


def test_finished_jobs_are_not_run_again_and_failed_ones_are(tmp_path):
    flaky = "import os\nif not os.path.exists('{0}'): open('{0}', 'w'); os._exit(3)"
    jobs = [
        scripted("once", f"open({str(tmp_path / 'times')!r}, 'a').write('x')"),
        scripted("flaky", flaky.format(tmp_path / "tried")),
    ]
    outcomes = execute(jobs, tmp_path)
    assert outcomes["flaky"].state == "failed"
    assert outcomes["flaky"].reason == "exit code 3"
    outcomes = execute(jobs, tmp_path)
    assert {o.state for o in outcomes.values()} == {"finished"}
    assert outcomes["once"].seconds is None
    assert (tmp_path / "times").read_text() == "x"


def test_a_job_that_ends_well_without_a_result_has_failed(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Never(Scripted):
        def is_done(self, root: Path) -> bool:
            return False

    outcome = execute([Never("job", "ll", {})], tmp_path)["job"]
    assert outcome.state == "failed"


@pytest.mark.parametrize(
    ("stop", "code"),
    # Python makes the signal itself of a KeyboardInterrupt that nobody catches.
    [
        (signal.SIGTERM, 128 + signal.SIGTERM),
        pytest.param(signal.SIGINT, -signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_the_running_job_is_asked_to_end_first(stop, code, tmp_path):
    """And once: a second signal would end it before it has saved."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "def leave(*_):\n"
        "    for number in (signal.SIGTERM, signal.SIGINT):\n"
        "        signal.signal(number, signal.SIG_DFL)\n"
        "    time.sleep(1)\n"
        f"    open({str(tmp_path / 'saved')!r}, 'w').close()\n"
        "    sys.exit(1)\n"
        "for number in (signal.SIGTERM, signal.SIGINT):\n"
        "    signal.signal(number, leave)\n"
        f"open({str(tmp_path / 'started')!r}, 'w').close()\n"
        "time.sleep(60)\n"
    )
    study = (
        "from tests.experiments.study.test_execution import *\n"
        # Where tests run in the background, it is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"code = 'import runpy; runpy.run_path(\"{script}\")'\n"
        f"root = Path({str(tmp_path)!r})\n"
        "kept = record.Record(root, {})\n"
        "execute([scripted('job', code)], root, kept.add)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", study],
        process_group=0,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    if stop == signal.SIGINT:  # a terminal's, to all that are in the foreground
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert (tmp_path / "saved").exists()
    assert err.startswith("[1/1] job: started\n")
    entry = json.loads((tmp_path / "study.json").read_text())["jobs"]["job"]
    name = "SIGTERM" if stop == signal.SIGTERM else "Ctrl-C"
    assert (entry["state"], entry["reason"]) == ("stopped", f"by {name}")
    assert entry["seconds"] >= 1.0


def test_who_runs_is_noted_and_said(tmp_path, capsys):
    """Also that a job runs: what a process that is killed leaves."""
    kept = record.Record(tmp_path, {})
    running = []

    def started(job: Job) -> None:
        kept.add(job, Outcome("running", seconds=0.0))
        content = json.loads((tmp_path / "study.json").read_text())
        running.append((job.name, content["jobs"][job.name]["state"]))

    jobs = [scripted("one"), scripted("two"), scripted("three")]
    (tmp_path / "one").touch()  # finished before
    execute(jobs, tmp_path, kept.add, started)
    assert running == [("two", "running"), ("three", "running")]
    content = json.loads((tmp_path / "study.json").read_text())
    assert {job["state"] for job in content["jobs"].values()} == {"finished"}
    first, second = capsys.readouterr().err.splitlines()
    assert first == "[2/3] two: started"
    assert re.fullmatch(r"\[3/3\] three: started, about 00:0\d left", second)


def test_the_record_adds_up_over_sessions(tmp_path):
    job = Job("a", "ll", {"dataset": "digits"}, "the label")
    for outcome in (
        Outcome("failed", "it broke", 2.0),
        Outcome("finished", "", 3.0),
        Outcome("finished"),
    ):
        record.Record(tmp_path, {"preset": "smoke"}).add(job, outcome)
    content = json.loads((tmp_path / "study.json").read_text())
    assert content["preset"] == "smoke"
    entry = content["jobs"]["a"]
    assert (entry["state"], entry["reason"]) == ("finished", "")
    assert entry["seconds"] == 5.0
    assert entry["command"] == (
        "python -m experiments.ll --dataset=digits --workdir=out/a"
    )


def test_the_table_names_failures(tmp_path):
    jobs = [Job("a", "ll", {}, "good run"), Job("b", "ll", {}, "bad run")]
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"program": "experiments.ll", "flags": {"num_steps": 5}})
    )
    metrics = {
        "test/bits_per_dim": 1.5,
        "test/bits_per_dim_std": 0.25,
        "test/bits_per_dim_seeds": [1.25, 1.75],
    }
    (folder / "result.json").write_text(
        json.dumps({"step": 5, "seeds": [0, 1], "metrics": metrics})
    )
    outcomes = {"a": Outcome("finished"), "b": Outcome("failed", "it broke")}
    text = record.table(jobs, outcomes, tmp_path)
    lines = text.splitlines()
    assert "bits/dim" in lines[0]
    assert "good run" in lines[2]
    assert "1.5" in lines[2]
    assert "bad run" in lines[3]
    assert lines[-1] == "- b: failed: it broke"
