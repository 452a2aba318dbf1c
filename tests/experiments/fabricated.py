"""Folders of runs as the programs write them, of every kind, made in no time."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.pictures import write_picture

EVIL = '<script>alert("1")</script>|`*x*`&amp;'


def make(
    folder: Path,
    program: str = "ll",
    *,
    lines: list[dict] | None = None,
    metrics: dict | None = None,
    step: int = 100,
    rows: dict | None = None,
    model: dict | None = None,
    panels: dict[str, tuple] | None = None,
    **flags: Any,
) -> Path:
    """The folder of a run, as the programs write it."""
    folder.mkdir(parents=True)
    values = {"dataset": "digits", "seed": 0, "num_seeds": 1, "num_steps": 100}
    values |= {"learning_rate": 0.1, "batch_size": 64, "workdir": str(folder)} | flags
    config = {"program": f"experiments.{program}", "flags": values}
    (folder / "config.json").write_text(json.dumps(config))
    text = "".join(json.dumps(line) + "\n" for line in lines or [])
    (folder / "metrics.jsonl").write_text(text)
    if metrics is not None:
        seeds = list(range(values["seed"], values["seed"] + values["num_seeds"]))
        result = {"step": step, "seeds": seeds, "steps_per_second": 10.0}
        result |= {"device": "1 x cpu", "metrics": metrics}
        (folder / "result.json").write_text(json.dumps(result))
    if rows is not None:
        evaluation = {"num_samples": 10, "num_real": 9, "split": "test", "rows": rows}
        evaluation["model"] = model or {}
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    if panels is not None:
        (folder / "samples").mkdir()
        write_picture(
            folder / "samples" / "samples_0000100.png",
            {
                title: np.full((4, 8, 8, 1), level, np.uint8)
                for title, level in panels.items()
            },
        )
    return folder


def seeds(name: str, *each: float) -> dict[str, Any]:
    """A metric over seeds as `metrics.over_seeds` has it."""
    deviation = float(np.std(each, ddof=1))
    return {name: float(np.mean(each)), f"{name}_std": deviation} | {
        f"{name}_seeds": list(each)
    }


def make_all(root: Path) -> None:
    """Runs of every kind: whole, unfinished, failed, damaged; and what is no run."""
    shown: Any = {"real": 10, "sampled": 20, "reconstructed": 30}
    floor = {"fd_classifier": 0.75, "kd_classifier": 0.5}
    make(
        root / "two_seeds",
        num_seeds=2,
        metrics=seeds("test/bits_per_dim", 1.0, 2.0),
        lines=[
            {"step": 50} | seeds("train/loss", 3.0, 4.0),
            {"step": 100} | seeds("train/loss", 2.0, 3.0),
        ],
        rows={
            "sampled": seeds("fd_classifier", 10.0, 14.0),
            "real, training set": floor,
        },
        model={"inpainting_stripes_mean": 0.125},
        panels=shown,
    )
    make(root / "other_rate", learning_rate=0.2, batch_size=32, metrics={})
    make(
        root / "collapsed",
        "gan",
        metrics={"test/sample_spread": 0.01},
        lines=[
            {"step": s, "train/discriminator_real_accuracy": 1.0}
            | {"train/discriminator_fake_accuracy": 1.0}
            for s in (50, 100)
        ],
        learning_rate=EVIL,
    )
    make(
        root / "unfinished",
        lines=[{"step": 50, "valid/bits_per_dim": 5.5, "train/loss": 1.0}],
        temperature=1.0,
        temperature_schedule="constant",
        dataset="mnist",
    )
    make(root / "warm", metrics={}, dataset="mnist", temperature=2.0)
    broken = make(root / "broken_result", "mmd", metrics={})
    (broken / "result.json").write_text('{"step": 1')
    (broken / "failure.json").write_text('{"reason": "loss is nan"}')
    with (broken / "metrics.jsonl").open("ab") as file:
        file.write(
            b'{"step": 10, "train/loss": "nan"}\n{"step"\n[1]\n\xff\n{"step": "x"}'
        )
    (broken / "samples").mkdir()
    (broken / "samples" / "samples_0000001.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (root / "empty").mkdir()
    (root / "no_json").mkdir()
    (root / "no_json" / "config.json").write_text("<html>")
    (root / "list").mkdir()
    (root / "list" / "config.json").write_text("[]")
    make(root / "x" / EVIL.replace("/", ""), EVIL)
    study = root / "study"
    study.mkdir()
    for name, ll in (("ll", -1.0), ("mmd", -1.5)):
        content = {"set": "moons", "objective": name, "test_ll": [ll, ll]}
        content |= {"energy": [0.25, 0.75], "modes": [1.0, 0.5], "seconds": 61}
        (study / f"moons-{name}.json").write_text(json.dumps(content))
    (study / "moons-adv.json").write_text("{")
