"""The whole of a study on digits: minutes on two cores, so it is run by name."""

import json
from pathlib import Path

import pytest

from experiments import study


@pytest.mark.slow
@pytest.mark.timeout(2400)  # ten minutes beside other work
def test_a_study_runs_continues_and_ends_with_its_report(tmp_path: Path, capsys):
    root = tmp_path / "study"
    command = ["study", f"--workdir={root}", "--num_seeds=2"]
    assert study.main(study.parse([*command, "--only=first"])) == 0
    first_result = (root / "first" / "result.json").read_bytes()
    assert study.main(study.parse(command)) == 0
    assert (root / "first" / "result.json").read_bytes() == first_result
    jobs = json.loads((root / "study.json").read_text())["jobs"]
    assert {job["state"] for job in jobs.values()} == {"finished"}
    table = (root / "table.md").read_text()
    for label in (
        "LL alone",
        "LL and MMD on features",
        "LL and ADV",
        "PAE, 16 latents",
    ):
        assert label in table
    for name in ("report.html", "report.md"):
        assert (root / "report" / name).stat().st_size > 10_000
    evaluation = json.loads((root / "mmd" / "evaluation.json").read_text())
    for title in ("sampled", "sampled, leaf means"):
        assert evaluation["rows"][title]["fd_classifier"] > 0
    capsys.readouterr()
    assert study.main(study.parse(command)) == 0  # nothing is left to do
    assert " in " not in capsys.readouterr().out.split("\n\n")[0]
