"""The report: from folders that are whole, damaged or foreign, twice the same."""

import html.parser
import json
from pathlib import Path
import re
from typing import Any

import numpy as np
from PIL import Image
import pytest

from experiments import metric_writer, report, trained
from experiments.errors import UserError
from experiments.report import (
    failures,
    grids,
    markdown,
    page,
    runs,
    sections,
    synthetic,
    values,
)
from experiments.report.document import MISSING, Document, Gallery, Section, Table

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
        metric_writer.write_picture(
            folder / "samples" / "samples_0000100.png",
            {
                title: np.full((4, 8, 8, 1), level, np.uint8)
                for title, level in panels.items()
            },
        )
    return folder


def seeds(name: str, *each: float) -> dict:
    """A metric over seeds as `summary.over_seeds` has it."""
    deviation = float(np.std(each, ddof=1))
    return {name: float(np.mean(each)), f"{name}_std": deviation} | {
        f"{name}_seeds": list(each)
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind."""
    root = tmp_path_factory.mktemp("out")
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
        **{"learning_rate": EVIL},
    )
    make(
        root / "unfinished",
        lines=[{"step": 50, "valid/bits_per_dim": 5.5, "train/loss": 1.0}],
        temperature=1.0,
        temperature_schedule="constant",
        dataset="mnist",
    )
    make(root / "warm", metrics={}, dataset="mnist", **{"temperature": 2.0})
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
    return root


@pytest.fixture(scope="module")
def collected(root: Path) -> runs.Collected:
    folders = report.folders(f"{root}/*,{root}/x/*", root / "report")
    return runs.collect([f for f in folders if f.name != "x"])


@pytest.fixture(scope="module")
def document(collected: runs.Collected) -> Document:
    return Document("Title", "and more", report.make_sections(collected))


def table(section: Section, title: str) -> dict[str, dict[str, str]]:
    """A table by its first column and header."""
    (found,) = (b for b in section.blocks if isinstance(b, Table) and title in b.title)
    return {
        row[0].text: {h: c.text for h, c in zip(found.header, row, strict=True)}
        for row in found.rows
    }


class Reader(html.parser.HTMLParser):
    """Cells, attributes and tags of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.cells: list[list[str]] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "action", "data")
        self.addresses += [v or "" for k, v in attrs if k in names]
        assert not any(k.startswith("on") for k, _ in attrs)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self._inside = True
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.cells[-1][-1] += data


def unescape(text: str) -> str:
    """The text that Markdown shows."""
    return html.unescape(re.sub(r"\\(.)", r"\1", text).replace("**", ""))


def test_both_renderings_have_the_same_cells(document: Document):
    reader = Reader(page.render(document))
    text, _ = markdown.render(document, "files")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    written = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
    expected = [
        [c.text + (f" ({c.note})" if c.note else "") for c in row]
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.rows
    ]
    assert len(expected) > 50
    clean = [[" ".join(c.split()) for c in row] for row in expected]
    of_page = [[" ".join(c.split()) for c in row] for row in reader.cells]
    of_text = [[unescape(c) for c in row] for row in written]
    for row in clean:
        assert row in of_page
        # The evil name has stars, which bold text has too.
        assert [c.replace("**", "") for c in row] in of_text
    captions = [
        figure.caption
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Gallery)
        for figure in block.figures
    ]
    assert captions
    for caption in captions:
        assert f"<figcaption>{page._text(caption)}</figcaption>" in page.render(
            document
        )
        assert markdown.escape(caption) in text


def test_the_page_needs_nothing_else_and_runs_nothing(document: Document):
    text = page.render(document)
    reader = Reader(text)
    assert not {"script", "link", "iframe", "object", "embed"} & set(reader.tags)
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in reader.addresses)
    assert "@import" not in text
    assert all(u.startswith("#") for u in re.findall(r"url\(([^)]*)", text))
    assert {"img", "svg"} <= set(reader.tags)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_foreign_text_stays_text(document: Document):
    assert EVIL in str(document)
    for text in (page.render(document), markdown.render(document, "files")[0]):
        assert "<script" not in text
        assert "alert" in text
    assert markdown.escape("a_b _c_ x|y\n# 1. `z`") == r"a_b \_c\_ x\|y # 1. \`z\`"
    assert markdown.escape("# x") == r"\# x"


def test_the_overview_has_every_folder(collected: runs.Collected):
    section = sections.overview(collected)
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


def test_distances_have_floors_and_dashes(collected: runs.Collected):
    section = sections.distances(collected)
    rows = table(section, "digits: 10 samples against 9 test images")
    assert rows["two_seeds"]["FD of classifier features ↓"] == "12.0 ± 2.8"
    assert rows["other_rate"]["FD of classifier features ↓"] == MISSING
    assert rows[MISSING]["images"] == "real, training set"  # the floor
    assert rows[MISSING]["KD of classifier features ↓"] == "0.5000"
    assert table(section, "mnist: not evaluated")["warm"]["distances"] == MISSING
    inpainting = table(sections.inpainting(collected), "digits")
    assert inpainting["two_seeds"]["stripes, mean ↓"] == "0.1250"


def test_signs_of_failure_come_with_their_evidence(collected: runs.Collected):
    section = failures.failure_modes(collected)
    rows = table(section, "Signs")
    assert rows["collapsed"]["samples"] == "collapsed: spread 0.01000"
    assert rows["collapsed"]["discriminator"].startswith("always right")
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
    (found,) = failures.failure_modes(runs.collect([tmp_path / "run"])).blocks
    assert isinstance(found, Table)
    bad = [
        h for h, c in zip(found.header, found.rows[0], strict=True) if c.tone == "bad"
    ]
    assert bad == ([] if sign is None else [sign])


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
    collected = runs.collect(folders)
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


def test_pictures_are_cut_by_what_they_show(collected: runs.Collected):
    shown = report.pictures.samples(collected)
    (gallery,) = (b for b in shown.blocks if b.title == "digits")
    assert isinstance(gallery, Gallery)
    captions = [figure.caption for figure in gallery.figures]
    assert captions[0] == "real"
    assert "two_seeds (ll): sampled" in captions
    broken = next(f for f in gallery.figures if "broken_result" in f.caption)
    assert broken.data is None
    assert "is no picture" in broken.caption
    (own,) = report.pictures.completions(collected).blocks
    assert isinstance(own, Gallery)
    assert [f.caption for f in own.figures] == ["two_seeds (ll): reconstructed"]


def test_the_synthetic_study(collected: runs.Collected):
    found = synthetic.table(collected)
    assert found is not None
    (_, mmd) = ([c.text for c in row] for row in found.rows)
    assert mmd[1:] == ["moons", "mmd", "-1.500 ± 0", "0.5000", "0.50 ± 0.35"] + [
        *("75 %", "1 min 1 s")
    ]


@pytest.mark.parametrize(
    ("each", "text"),
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
def test_numbers_as_text(each, text):
    assert values.spread(values.pooled(each)) == text


@pytest.mark.parametrize("value", [True, None, [], {}, "1", 10**400])
def test_what_is_no_number(value):
    assert values.as_number(value) is None


def test_names_are_as_short_as_they_can_be(tmp_path: Path):
    folders = [make(tmp_path / n) for n in ("a/x", "b/x", "b/y")]
    names = [run.name for run in runs.collect(folders).runs]
    assert names == ["a/x", "b/x", "y"]


@pytest.mark.parametrize("program", trained.PROGRAMS)
def test_the_defaults_of_a_program_are_known(program):
    defaults = report.defaults_of(program)
    assert defaults is not None
    assert defaults["dataset"] == "digits"
    assert report.defaults_of("os") is None


def test_the_program(root: Path, tmp_path: Path, capsys):
    out = tmp_path / "report"
    groups = report.parse(["report", f"--runs={root}/*", f"--out={out}"])
    for _ in range(2):  # the second replaces the first
        assert report.main(groups) == 0
    assert "other folders" in capsys.readouterr().out
    text = (out / "report.md").read_text()
    files = {path.name for path in (out / "report_files").iterdir()}
    assert set(re.findall(r"\(report_files/([^)]*)\)", text)) == files
    for path in (out / "report_files").glob("*.png"):
        with Image.open(path) as picture:
            picture.verify()
    assert "<h1>Report of runs</h1>" in (out / "report.html").read_text()
    with pytest.raises(UserError, match=r"--runs must name folders, got .*none"):
        report.main(report.parse(["report", f"--runs={tmp_path}/nothing/*"]))
    with pytest.raises(UserError, match="--runs must be given"):
        report.main(report.parse(["report"]))
    (tmp_path / "file").write_text("")
    wrong = ["report", f"--runs={root}/*", f"--out={tmp_path}/file"]
    with pytest.raises(UserError, match="--out must be a folder that can be written"):
        report.main(report.parse(wrong))


def test_help_names_the_flags(capsys):
    with pytest.raises(SystemExit) as end:
        report.parse(["report", "--help"])
    assert end.value.code == 0
    assert "--runs" in capsys.readouterr().out
