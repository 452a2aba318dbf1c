"""Binary tables: small files made here, every damage, and the real archive."""

import io
import json
from pathlib import Path
import tarfile
from typing import Any

import numpy as np
import pytest

import dspc_jax as pc
from experiments import data, evaluate, ll
from experiments.console.errors import UserError
from experiments.engine.flags import Settings
from experiments.models.circuit import circuit_config
from tests.experiments.data.real import REAL, needs

SIZES = {"train": 40, "valid": 9, "test": 11}


def table(name: str, split: str) -> np.ndarray:
    """Rows that depend on their table and part; neighbors are mostly alike."""
    rng = np.random.default_rng([*name.encode(), *split.encode()])
    flips = rng.random((SIZES[split], 5)) < 0.2
    return np.cumsum(flips, axis=1) % 2


def content(name: str, split: str) -> bytes:
    lines = (",".join(map(str, row)) for row in table(name, split).tolist())
    return "".join(f"{line}\n" for line in lines).encode()


def write_folder(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        for split in SIZES:
            (root / name / f"{name}.{split}.data").write_bytes(content(name, split))


def write_archive(path: Path, *names: str) -> None:
    members = {
        f"datasets/{name}/{name}.{split}.data": content(name, split)
        for name in names
        for split in SIZES
    }
    mode: Any = f"w:{path.suffix[1:]}"
    with tarfile.open(path, mode) as archive:
        for member, text in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))


def load(root: Path, name: str = "one", **options) -> data.Dataset:
    return data.load("debd", str(root), data.Options(debd_name=name, **options))


def assert_is(dataset: data.Dataset, name: str) -> None:
    for split in SIZES:
        outcome = getattr(dataset, split)
        assert outcome.dtype == np.uint8
        np.testing.assert_array_equal(outcome[..., 0], table(name, split))
    assert dataset.name == f"debd-{name}"
    assert (dataset.height, dataset.width, dataset.num_values) == (1, 5, 2)
    assert dataset.is_table


@pytest.mark.parametrize("base", [".", "datasets", "debd", "debd/datasets"])
def test_tables_in_folders(tmp_path, base):
    write_folder(tmp_path / base, "one", "two")
    (tmp_path / "README.md").write_text("a clone has other files")
    for name in ("one", "two"):
        assert_is(load(tmp_path, name), name)
    assert_is(load(tmp_path / base / "two", "two"), "two")
    text = data.describe(load(tmp_path))
    assert text.endswith(
        "40 / 9 / 11 rows for training, validation and test, 5 variables"
    )


@pytest.mark.parametrize("name", ["debd_2of29.tar.xz", "debd.tar.gz"])
def test_tables_in_archives(tmp_path, name):
    write_archive(tmp_path / name, "one", "two")
    for root in (tmp_path, tmp_path / name):
        dataset = load(root, "two")
        assert_is(dataset, "two")
        assert dataset.source is not None
        assert [file["name"] for file in dataset.source["files"]] == [name]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_part_of_the_training_rows(tmp_path):
    write_folder(tmp_path, "one")
    rows = load(tmp_path, train_fraction=0.25).train
    np.testing.assert_array_equal(rows[..., 0], table("one", "train")[::4])


def test_files_of_windows_are_the_same(tmp_path):
    write_folder(tmp_path, "one")
    path = tmp_path / "one/one.valid.data"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert_is(load(tmp_path), "one")


@pytest.mark.parametrize(
    ("split", "line", "text", "message"),
    [
        ("train", 3, b"0,1,2,0,1", "line 4 of .*one.train.data must have 5 values, 0"),
        ("valid", 2, b"0,1,1,0", "line 3 of .*valid.data must .* got '0,1,1,0'"),
        ("test", 1, b"0,,1,,0,1", "line 2 of .*test.data must have 5 values"),
        ("test", 1, b"0,,11,0,1", "line 2 of .*test.data must have 5 values"),
        ("test", 2, b"", "line 3 of .*test.data must have 5 values.* got ''"),
        ("test", 0, b"0,1", "line 2 of .*test.data must have 2 values"),
        ("test", 4, b"0\xff1,0,1,1", "line 5 of .*test.data must have 5 values"),
    ],
)
def test_wrong_values_are_named_by_line(tmp_path, split, line, text, message):
    write_folder(tmp_path, "one")
    path = tmp_path / f"one/one.{split}.data"
    lines = path.read_bytes().split(b"\n")
    lines[line] = text
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_parts_have_the_same_columns(tmp_path):
    write_folder(tmp_path, "one")
    (tmp_path / "one/one.test.data").write_text("0,1\n1,1\n")
    with pytest.raises(UserError, match=r"test.data must have the columns .* 5, got 2"):
        load(tmp_path)
    (tmp_path / "one/one.test.data").write_text("\n")
    with pytest.raises(UserError, match=r"test.data must have rows .* got none"):
        load(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    message = r"--debd_name must be a table in .*\(none are there\), got 'one' without"
    with pytest.raises(UserError, match=message):
        load(tmp_path)
    write_archive(tmp_path / "debd.tar.gz", "four", "two")
    with pytest.raises(UserError, match=r"\(four, two are there\), got 'one'"):
        load(tmp_path)
    write_folder(tmp_path / "clone", "one")
    (tmp_path / "clone/one/one.valid.data").unlink()
    with pytest.raises(UserError, match=r"got 'one' without one.valid.data"):
        load(tmp_path / "clone")
    with pytest.raises(UserError, match=r"--data_dir must name the folder .* of debd"):
        data.load("debd", None)
    with pytest.raises(UserError, match="--image_size, .* where --dataset=debd, got 8"):
        load(tmp_path, image_size=8)
    with pytest.raises(UserError, match="--data_source must be auto or files"):
        load(tmp_path, source="tfds")


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "debd.tar.xz"
    write_archive(path, "one")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"debd.tar.xz is truncated or damaged"):
        load(tmp_path)
    with tarfile.open(path, "w:xz") as archive:
        link = tarfile.TarInfo("one/one.train.data")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match=r"one.train.data of .* must be one file"):
        load(tmp_path)


def test_the_structure_is_a_function_of_the_rows(tmp_path):
    """So a run that is read back has the same circuit."""
    write_folder(tmp_path, "one")
    settings = Settings(
        structure="hidden_chow_liu", leaf="bernoulli", num_leaves=2, num_sums=2
    )
    config, again = (circuit_config(settings, load(tmp_path)) for _ in range(2))
    assert config == again
    assert config.structure == pc.hidden_chow_liu_tree(table("one", "train"))
    color = load(tmp_path)
    color = color._replace(train=color.train.repeat(3, axis=2))
    with pytest.raises(UserError, match=r"--structure must .* several channels, got 3"):
        circuit_config(settings, color)


@pytest.mark.slow
def test_a_run_from_training_to_evaluation(tmp_path, capsys):
    """The structure is learned from the rows again when the run is read back."""
    write_folder(tmp_path / "data", "one")
    workdir = tmp_path / "run"
    words = [
        *("--dataset=debd", "--debd_name=one", f"--data_dir={tmp_path / 'data'}"),
        *("--structure=hidden_chow_liu", "--leaf=bernoulli", "--num_sums=2"),
        *("--num_leaves=2", "--optimizer=em", "--num_steps=2", "--batch_size=8"),
        f"--workdir={workdir}",
    ]
    assert ll.main(ll.parse(["ll", "--recipe=none", *words])) == 0
    metrics = json.loads((workdir / "result.json").read_text())["metrics"]
    nats = -metrics["test/bits_per_dim"] * 5 * np.log(2)
    np.testing.assert_allclose(metrics["test/log_likelihood"], nats, rtol=1e-5)
    evaluation = ["evaluate", f"--run={workdir}", "--num_samples=4"]
    assert evaluate.main(evaluate.parse(evaluation)) == 0
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["rows"] == {}
    model = result["model"]
    assert model["log_likelihood"] == metrics["test/log_likelihood"]
    assert {"inpainting_random_mpe", "inpainting_random_mean"} <= model.keys()
    assert "log_likelihood" in capsys.readouterr().out


@needs("debd")
def test_the_real_archive():
    dataset = load(REAL / "debd", "nltcs")
    assert [len(getattr(dataset, split)) for split in SIZES] == [16181, 2157, 3236]
    assert dataset.width == 16
