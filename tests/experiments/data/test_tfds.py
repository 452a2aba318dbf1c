"""tensorflow-datasets: our side with a stand-in, and the real package where it is."""

import hashlib
import importlib.machinery
import importlib.util
import json
from pathlib import Path
import sys
import types
from typing import Any

import numpy as np
import pytest

from experiments import data
from experiments.console.errors import UserError
from experiments.data import tfds
from tests.experiments import runs
from tests.experiments.data.real import REAL, needs

SIZES = {"mnist": (28, 28, 1), "celeb_a": (218, 178, 3)}


class Builder:
    """The part of a builder that we use: 40 training images, 10 for the test."""

    prepared = 0
    error: Exception | None = None

    def __init__(self, name: str, data_dir: str | None, file_format: str):
        assert file_format == "array_record"
        self._name = name
        self.data_path = Path(data_dir or "") / name / "3.0.1"
        parts = {"train": 40, "test": 10} | (
            {"validation": 20} if name == "celeb_a" else {}
        )
        splits = {k: types.SimpleNamespace(num_examples=v) for k, v in parts.items()}
        self.info = types.SimpleNamespace(splits=splits, full_name=f"{name}/3.0.1")

    def is_prepared(self) -> bool:
        return self.data_path.exists()

    def download_and_prepare(self, file_format: str) -> None:
        assert file_format == "array_record"
        if Builder.error is not None:
            raise Builder.error
        Builder.prepared += 1
        self.data_path.mkdir(parents=True)
        (self.data_path / "x.array_record-00000-of-00001").write_bytes(b"records")

    def as_data_source(self, part: str) -> list[dict[str, Any]]:
        generator = np.random.Generator(np.random.Philox(len(part)))
        shape = (self.info.splits[part].num_examples, *SIZES[self._name])
        images = generator.integers(0, 256, shape).astype(np.uint8)
        if self._name == "celeb_a":
            return [{"image": image} for image in images]
        return [{"image": image, "label": i % 10} for i, image in enumerate(images)]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[Builder]:
    """The package, and TensorFlow, as far as we use them."""
    for name in ("tensorflow_datasets", "tensorflow"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__["builder"] = Builder
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Builder, "prepared", 0)
    monkeypatch.setattr(Builder, "error", None)
    return Builder


def test_a_set_without_validation_is_carved(stand_in: type[Builder], tmp_path: Path):
    images = data.load("mnist", str(tmp_path))  # no archives: auto takes the package
    assert (len(images.train), len(images.valid), len(images.test)) == (36, 4, 10)
    examples = Builder("mnist", str(tmp_path), "array_record").as_data_source("train")
    np.testing.assert_array_equal(
        images.valid.reshape(4, 28, 28, 1),
        np.stack([e["image"] for e in examples[36:]]),
    )
    assert images.train_labels is not None
    assert images.valid_labels is not None
    assert images.train_labels.tolist() == [i % 10 for i in range(36)]
    assert images.valid_labels.tolist() == [6, 7, 8, 9]
    assert images.source is not None
    assert images.source["version"] == "mnist/3.0.1"
    assert images.source["subset"] == "40 of 60000 train, 10 of 10000 test"
    again = data.load("mnist", str(tmp_path), data.Options(source="tfds"))
    np.testing.assert_array_equal(again.train, images.train)
    assert stand_in.prepared == 1


def test_a_set_with_validation_is_not(stand_in: type[Builder], tmp_path: Path):
    del stand_in
    images = data.load("celeba", str(tmp_path), data.Options(image_size=8))
    assert (len(images.train), len(images.valid), len(images.test)) == (40, 20, 10)
    assert (images.height, images.width, images.num_channels) == (8, 8, 3)
    assert images.train_labels is None


def test_archives_come_first(stand_in: type[Builder], tmp_path: Path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is truncated"):
        data.load("mnist", str(tmp_path))
    assert stand_in.prepared == 0


def test_a_failure_is_one_line(stand_in: type[Builder], tmp_path: Path):
    stand_in.error = ConnectionError("no route\nto host")
    with pytest.raises(
        UserError, match="cannot prepare mnist: ConnectionError: no rou"
    ):
        data.load("mnist", str(tmp_path))


def test_records_that_cannot_be_read_are_one_line(
    stand_in: type[Builder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(self, part: str):
        raise NotImplementedError(f"{part} is\nin another format")

    monkeypatch.setattr(stand_in, "as_data_source", refuse)
    with pytest.raises(UserError, match="cannot read mnist: NotImpl.* is in another"):
        data.load("mnist", str(tmp_path))
    assert not list((tmp_path / ".prepared").glob("mnist-*"))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert not tfds.is_installed()
    with pytest.raises(UserError, match=r"tensorflow-datasets: pip install 'dspc_jax"):
        data.load("mnist", None, data.Options(source="tfds"))
    with pytest.raises(UserError, match="--data_dir must name the folder"):
        data.load("mnist", None)
    with pytest.raises(UserError, match="no tensorflow-datasets that could fetch them"):
        data.load("mnist", str(tmp_path))


def test_preparing_needs_tensorflow(
    stand_in: type[Builder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delitem(sys.modules, "tensorflow")
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow" else original(name),
    )
    with pytest.raises(UserError, match="needs TensorFlow, once; reading it does not"):
        data.load("mnist", str(tmp_path))
    assert stand_in.prepared == 0


# Puts the official files where the package looks for its downloads.
SEED = """
import json, shutil, sys
from pathlib import Path
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

folder = Path(sys.argv[1]) / "downloads"
folder.mkdir()
for url, info in tfds.builder_cls("mnist").url_infos.items():
    path = folder / resource.get_dl_fname(url, info.checksum)
    shutil.copy(Path(sys.argv[2]) / url.rpartition("/")[2], path)
    resource.get_info_path(path).write_text(json.dumps({
        "urls": [url], "dataset_names": ["mnist"], "original_fname": path.name,
        "url_info": info.asdict(),
    }))
"""

# Reads, with or without TensorFlow; prints sizes and a hash of the content.
READ = """
import hashlib, json, sys
import numpy as np

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "tensorflow":
            return None
        return self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

if sys.argv[3] == "without":
    sys.meta_path[:] = map(Without, sys.meta_path)
from experiments import data
options = data.Options(source="tfds", cache_dir=sys.argv[2])
images = data.load("mnist", sys.argv[1], options)
rows = np.concatenate([images.train, images.valid])
labels = np.concatenate([images.train_labels, images.valid_labels])
pairs = sorted(row.tobytes() + bytes([n]) for row, n in zip(rows, labels, strict=True))
print(json.dumps({
    "sizes": [len(images.train), len(images.valid), len(images.test)],
    "complete": images.source["complete"],
    "content": hashlib.sha256(b"".join(pairs)).hexdigest(),
    "tensorflow": "tensorflow" in sys.modules,
}))
"""


def run(*arguments: str) -> str:
    """The output of a program that may take minutes on a busy machine."""
    process = runs.start(*arguments, program="-c")
    out, err = process.communicate(timeout=1500)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs("mnist")
@pytest.mark.skipif(
    any(
        importlib.util.find_spec(name) is None
        for name in ("tensorflow_datasets", "tensorflow")
    ),
    reason="the extra 'data' is not installed",
)
def test_mnist_is_prepared_without_network_and_read_without_tensorflow(tmp_path: Path):
    """Downloads that are there are not fetched; the images are those of the files."""
    source = str(REAL / "mnist")
    run(SEED, str(tmp_path), source)
    outputs = {}
    for mode in ("with", "without"):
        out = run(READ, str(tmp_path), str(tmp_path / mode), mode)
        outputs[mode] = json.loads(out.splitlines()[-1])
    assert outputs["with"].pop("tensorflow")
    assert not outputs["without"].pop("tensorflow")
    assert outputs["with"] == outputs["without"]
    assert outputs["with"]["sizes"] == [55000, 5000, 10000]
    assert outputs["with"]["complete"]
    images = data.load("mnist", source, data.Options(source="files"))
    rows = np.concatenate([images.train, images.valid])
    assert images.train_labels is not None
    assert images.valid_labels is not None
    labels = np.concatenate([images.train_labels, images.valid_labels])
    pairs = sorted(
        row.tobytes() + bytes([n]) for row, n in zip(rows, labels, strict=True)
    )
    content = hashlib.sha256(b"".join(pairs)).hexdigest()
    assert outputs["with"]["content"] == content
