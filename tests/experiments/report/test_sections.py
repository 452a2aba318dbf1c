"""The sections of the report, of fabricated runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import report
from experiments.measuring.collection import Collected, collect
from experiments.measuring.last_values import pooled
from experiments.measuring.runs import settings_of
from experiments.report import (
    failures,
    grids,
    overview,
    sections,
    synthetic,
    values,
)
from experiments.report.document import MISSING, Cell, Gallery, Section, Table
from tests.experiments.fabricated import make


def table(section: Section, title: str) -> dict[str, dict[str, str]]:
    """A table by its first column and header."""
    (block,) = (b for b in section.blocks if isinstance(b, Table) and title in b.title)
    return {
        row[0].text: {h: c.text for h, c in zip(block.header, row, strict=True)}
        for row in block.rows
    }


def test_the_overview_has_every_folder(collected: Collected):
    section = overview.overview(collected)
    rows = table(section, "Runs")
    assert set(rows) == {run.name for run in collected.runs}
    assert rows["two_seeds"]["bits/dim ↓"] == "1.50 ± 0.71"
    assert rows["two_seeds"]["seeds"] == "0, 1"
    assert rows["two_seeds"]["wall time"] == "about 10.0 s"
    assert rows["unfinished"]["state"] == "unfinished"
    assert rows["unfinished"]["steps"] == "50 of 100"
    assert rows["unfinished"]["bits/dim ↓"] == "5.500"
    assert rows["broken_result"]["state"] == "failed"
    assert rows["other_rate"]["bits/dim ↓"] == MISSING
    (reasons,) = section.blocks[1:]
    assert isinstance(reasons, Table)
    texts = [(row[0].text, row[1].text) for row in reasons.rows]
    assert dict(texts)["empty"] == "no config.json: not the folder of a run"
    assert ("broken_result", "failed: loss is nan") in texts
    for name, part in (
        ("no_json", "config.json is not JSON"),
        ("list", "config.json is not an object"),
        ("broken_result", "result.json is not JSON"),
        ("broken_result", "4 of 5 lines are unreadable"),
        ("study", "moons-adv.json is not JSON"),
    ):
        assert any(n == name and part in reason for n, reason in texts), name


def test_distances_have_floors_and_dashes(collected: Collected):
    section = sections.distances(collected)
    rows = table(section, "digits: 10 samples against 9 test images")
    assert rows["two_seeds"]["FD of classifier features ↓"] == "12.0 ± 2.8"
    assert rows["other_rate"]["FD of classifier features ↓"] == MISSING
    assert rows[MISSING]["images"] == "real, training set"  # the floor
    assert rows[MISSING]["KD of classifier features ↓"] == "0.5000"
    assert table(section, "mnist: not evaluated")["warm"]["distances"] == MISSING
    inpainting = table(sections.inpainting(collected), "digits")
    assert inpainting["two_seeds"]["stripes, mean ↓"] == "0.1250"


def test_signs_of_failure_come_with_their_evidence(collected: Collected):
    section = failures.failure_modes(collected)
    rows = table(section, "Signs")
    assert rows["collapsed"]["samples"] == "collapsed: spread 0.01000"
    assert rows["collapsed"]["discriminator"].startswith("has won")
    assert rows["broken_result"]["finite"] == "stopped: loss is nan"
    assert rows["two_seeds"]["samples"] == MISSING
    assert section.paragraphs[-1].startswith("2 of ")


@pytest.mark.parametrize(
    ("metric", "value", "sign"),
    [
        ("valid/sample_spread", 0.5, None),
        ("valid/sample_spread", 0.05, "samples"),
        ("valid/active_latents", 3.0, None),
        ("valid/active_latents", 0.0, "latents"),
        ("train/loss", "inf", "finite"),
    ],
)
def test_a_sign_is_there_or_not(tmp_path: Path, metric, value, sign):
    make(tmp_path / "run", lines=[{"step": 10, metric: value}])
    (signs,) = failures.failure_modes(collect([tmp_path / "run"])).blocks
    assert isinstance(signs, Table)
    columns = [
        h for h, c in zip(signs.header, signs.rows[0], strict=True) if c.tone == "bad"
    ]
    assert columns == ([] if sign is None else [sign])


@pytest.mark.parametrize(
    ("real", "fake", "word"),
    [
        (1.0, 0.995, "has won"),
        (1.0, 0.9, "right about"),
        (0.4, 0.3, "left behind"),
        (0.4, 0.7, "right about"),
    ],
)
def test_a_discriminator_in_and_out_of_balance(tmp_path: Path, real, fake, word):
    names = [f"train/discriminator_{side}_accuracy" for side in ("real", "fake")]
    start = [{"step": s} | dict.fromkeys(names, 0.75) for s in (10, 20, 30)]
    end = {"step": 40} | dict(zip(names, (real, fake), strict=True))
    make(tmp_path / "run", "adv", lines=[*start, end])
    (row,) = table(failures.failure_modes(collect([tmp_path / "run"])), "").values()
    assert row["discriminator"].startswith(word)


def test_the_least_spread_is_named(tmp_path: Path):
    lines = [{"step": s, "valid/sample_spread": v} for s, v in ((10, 0.05), (20, 0.5))]
    make(tmp_path / "run", lines=lines)
    (row,) = table(failures.failure_modes(collect([tmp_path / "run"])), "").values()
    assert row["samples"] == "spread 0.5000 (valid, step 20) (least 0.05000 at step 10)"


def test_grids_are_of_runs_that_differ_in_nothing_else(tmp_path: Path):
    def run(name, **flags):
        bits = flags.pop("bits")
        return make(tmp_path / name, metrics={"test/bits_per_dim": bits}, **flags)

    folders = [
        run("a", bits=1.0),
        run("b", bits=2.0, batch_size=128),
        run("c", bits=3.0, learning_rate=0.2),
        run("d", bits=5.0, seed=1),  # another seed of a
        run("e", bits=7.0, learning_rate=0.3, num_leaves=9),
        run("f", bits=9.0, temperature=1.0, temperature_schedule="constant"),
        run("g", bits=8.0, temperature=1.0, temperature_schedule="learned"),
    ]
    collected = collect(folders)
    section = grids.rates_by_batches(collected, report.pictures.picture_of)
    rows = table(section, "bits/dim")
    assert rows == {
        "0.1": {"learning rate": "0.1", "64": "3.0 ± 2.8", "128": "2"},
        "0.2": {"learning rate": "0.2", "64": "3", "128": MISSING},
    }
    (gallery,) = (b for b in section.blocks if isinstance(b, Gallery))
    assert gallery.num_columns == 2
    assert [figure.data for figure in gallery.figures] == [None] * 4
    warm = table(grids.temperature(collected, report.pictures.picture_of), "bits/dim")
    assert warm == {
        "1.0": {"temperature": "1.0", "constant": "9", "learned": "8"},
    }


def test_pictures_are_cut_by_what_they_show(collected: Collected):
    section = report.pictures.samples(collected)
    (gallery,) = (b for b in section.blocks if b.title == "digits")
    assert isinstance(gallery, Gallery)
    captions = [figure.caption for figure in gallery.figures]
    assert captions[0] == "real"
    assert "two_seeds (ll): sampled" in captions
    broken = next(f for f in gallery.figures if "broken_result" in f.caption)
    assert broken.data is None
    assert "is no picture" in broken.caption
    (completions,) = report.pictures.completions(collected).blocks
    assert isinstance(completions, Gallery)
    captions = [figure.caption for figure in completions.figures]
    assert captions == ["two_seeds (ll): reconstructed"]


def test_a_picture_that_stands_for_a_run_is_of_its_own_circuit(tmp_path: Path):
    """Not of a sharper one, which comes after it; galleries say which it is."""
    panels: Any = {"sampled": 20, "sampled, sharpness 2": 200}
    make(tmp_path / "run", panels=panels, sharpness=2.0)
    make(tmp_path / "plain", panels={"sampled": 20})
    collected = collect([tmp_path / "run", tmp_path / "plain"])
    (setting,) = settings_of(collected.runs)  # nothing else was learned
    plain = report.pictures.picture_of(setting, "")
    (gallery,) = report.pictures.samples(collected).blocks
    assert isinstance(gallery, Gallery)
    figures = {figure.caption: figure.data for figure in gallery.figures}
    assert figures["run (ll): sampled"] == plain.data
    assert figures["run (ll): sampled, sharpness 2"] != plain.data


def test_the_synthetic_study(collected: Collected):
    numbers = synthetic.table(collected)
    assert numbers is not None
    (_, mmd) = ([c.text for c in row] for row in numbers.rows)
    assert mmd[1:] == ["moons", "mmd", "-1.500 ± 0", "0.5000", "0.50 ± 0.35"] + [
        *("75 %", "1 min 1 s")
    ]


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([0.0], "0"),
        ([12345.0], "12,345"),
        ([1234.56], "1,235"),
        ([0.000012345], "1.23e-05"),
        ([-0.5], "-0.5000"),
        ([float("nan")], "nan"),
        ([float("inf"), 1.0], "inf"),
        ([1.0, 1.0], "1 ± 0"),
        ([1e-9, 3e-9], "2.000e-09 ± 1.4e-09"),
        ([100.0, 300.0], "200 ± 141"),
        ([1e200, -1e200], "0"),  # a deviation that no number can hold
    ],
)
def test_numbers_as_text(seeds, text):
    assert values.spread(pooled(seeds)) == text


def test_an_evaluation_of_an_older_step_says_so(tmp_path: Path):
    folder = make(
        tmp_path / "run",
        metrics={},
        rows={"sampled": {"fid": 3.0}, "mean image": {"fid": 9.0}},
    )
    path = folder / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 50}))
    (distances,) = sections.distances(collect([folder])).blocks
    assert isinstance(distances, Table)
    assert [(row[1].text, row[2].note) for row in distances.rows] == [
        ("sampled", "step 50"),
        ("mean image", ""),
    ]


def test_seeds_of_two_folders_are_one_setting(tmp_path: Path):
    folders = [
        make(tmp_path / str(seed), seed=seed, metrics={"test/bits_per_dim": bits})
        for seed, bits in ((0, 1.0), (1, 3.0))
    ]
    again = make(tmp_path / "again", seed=1, metrics={"test/bits_per_dim": 3.0})
    section = sections.bits_per_dimension(collect([*folders, again]))
    rows = table(section, "digits")
    assert {name: row["bits/dim ↓"] for name, row in rows.items()} == {
        "0, 1, again": "2.0 ± 1.4"
    }


def test_a_whole_run_beats_one_that_is_not(tmp_path: Path):
    """Validation of an early step is not averaged with the test of another seed."""
    finished = make(tmp_path / "finished", metrics={"test/bits_per_dim": 1.0})
    line = {"step": 10, "valid/bits_per_dim": 9.0}
    unfinished = make(tmp_path / "unfinished", seed=1, lines=[line])
    section = sections.bits_per_dimension(collect([finished, unfinished]))
    (row,) = table(section, "digits").values()
    assert row["bits/dim ↓"] == "1"
    (bits,) = sections.bits_per_dimension(collect([unfinished])).blocks
    assert isinstance(bits, Table)
    assert bits.rows[0][1] == Cell("9", note="valid, step 10")


def test_a_flag_that_a_run_did_not_know_is_at_its_default(tmp_path: Path):
    folders = [make(tmp_path / "old"), make(tmp_path / "new", seed=1, flip="none")]
    folders.append(make(tmp_path / "other", flip="horizontal"))
    settings = collect(folders, lambda program: {"flip": "none"}).settings
    assert [setting.name for setting in settings] == ["new, old", "other"]
    assert len(collect(folders).settings) == 3
