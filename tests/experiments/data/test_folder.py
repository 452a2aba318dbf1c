"""A folder of pictures: parts, sizes, colors, and wrong files."""

from pathlib import Path
import re

import numpy as np
from PIL import Image
import pytest

from experiments import data
from experiments.console.errors import UserError
from tests.experiments.data.pictures import picture


def load(folder: Path, **options) -> data.Dataset:
    return data.load("folder", str(folder), data.Options(**options))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty pictures of 12x10 pixels in two folders and two formats."""
    for i in range(30):
        path = tmp_path / ("ab"[i % 2]) / f"{i}.{('png', 'BMP')[i % 2]}"
        path.parent.mkdir(exist_ok=True)
        picture(12, 10, i).save(path)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "a" / ".hidden.png").write_text("no picture")
    return tmp_path


def as_rows(path: Path) -> bytes:
    return np.asarray(Image.open(path)).tobytes()


def test_every_picture_is_in_one_part(pictures: Path):
    images = load(pictures)
    parts = (images.train, images.valid, images.test)
    assert [len(part) for part in parts] == [24, 3, 3]
    assert (images.height, images.width, images.num_channels) == (10, 12, 3)
    paths = [path for path in pictures.rglob("*") if path.suffix in (".png", ".BMP")]
    expected = sorted(as_rows(p) for p in paths if not p.name.startswith("."))
    assert sorted(row.tobytes() for part in parts for row in part) == expected
    assert images.source is not None
    assert images.source["complete"]
    (entry,) = images.source["files"]
    assert entry["name"] == pictures.name


def test_the_split_depends_on_names_alone(pictures: Path, tmp_path_factory):
    first = load(pictures)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in "ba":
        (pictures / name).rename(elsewhere / name)
    moved = load(elsewhere)
    np.testing.assert_array_equal(first.test, moved.test)
    assert first.source is not None
    assert moved.source is not None
    hashes = [source["files"][0]["sha256"] for source in (first.source, moved.source)]
    assert hashes[0] == hashes[1]
    picture(12, 10, 99).save(elsewhere / "a" / "0.png")
    changed = load(elsewhere)
    assert changed.source is not None
    assert changed.source["files"][0]["sha256"] != hashes[0]


def test_folders_named_as_parts_are_the_parts(pictures: Path):
    (pictures / "a").rename(pictures / "train")
    (pictures / "b").rename(pictures / "test")
    images = load(pictures)
    assert (len(images.train), len(images.valid), len(images.test)) == (14, 1, 15)
    names = sorted((pictures / "test").glob("*.BMP"))
    assert sorted(row.tobytes() for row in images.test) == sorted(map(as_rows, names))
    (pictures / "valid").mkdir()
    for i in range(10):
        picture(12, 10, 50 + i).save(pictures / "valid" / f"{i}.png")
    images = load(pictures)
    assert (len(images.train), len(images.valid), len(images.test)) == (15, 10, 15)
    assert images.source is not None
    assert images.source["split"] == "the folders train, valid and test"


def test_folders_below_a_part_are_classes(pictures: Path):
    images = load(pictures)
    assert images.train_labels is not None
    assert images.test_labels is not None
    label_of = {
        as_rows(path): "ab".index(path.parent.name)
        for path in pictures.rglob("*")
        if path.suffix in (".png", ".BMP") and not path.name.startswith(".")
    }
    for part, labels in (
        (images.train, images.train_labels),
        (images.test, images.test_labels),
    ):
        assert [label_of[row.tobytes()] for row in part] == labels.tolist()
    for part in ("train", "test"):
        for name in "xy":
            for i in range(6):
                path = pictures / part / name / f"{i}.png"
                path.parent.mkdir(exist_ok=True, parents=True)
                picture(4, 4, i).save(path)
    images = load(pictures)
    assert images.test_labels is not None
    assert sorted(images.test_labels) == [0] * 6 + [1] * 6
    picture(4, 4, 9).save(pictures / "test" / "no_class.png")
    assert load(pictures).test_labels is None


def test_sizes_and_colors(pictures: Path):
    picture(20, 20, 77, "L").save(pictures / "gray.png")
    with pytest.raises(UserError, match="--image_size must be given where") as caught:
        load(pictures)
    assert "gray.png" in str(caught.value)
    images = load(pictures, image_size=8)
    assert (images.height, images.width, images.num_channels) == (8, 8, 3)
    assert load(pictures, image_size=8, image_mode="gray").num_channels == 1


def test_gray_pictures_stay_gray(tmp_path: Path):
    for i in range(10):
        picture(4, 4, i, "L").save(tmp_path / f"{i}.png")
    images = load(tmp_path)
    assert (len(images.train), images.num_channels) == (8, 1)
    assert load(tmp_path, image_mode="rgb").num_channels == 3


def test_wrong_folders_and_pictures_are_named(pictures: Path, tmp_path_factory):
    for data_dir in (None, "/nowhere"):
        with pytest.raises(
            UserError, match="--data_dir must name a folder of pictures"
        ):
            data.load("folder", data_dir)
    with pytest.raises(UserError, match="--data_source must be auto or files"):
        load(pictures, source="tfds")
    with pytest.raises(UserError, match="at least 10 pictures .*, got 0"):
        load(tmp_path_factory.mktemp("empty"))
    path = pictures / "a" / "2.png"
    content = path.read_bytes()
    for damaged in (b"", b"text", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(
            UserError, match=re.escape(f"{path} cannot be read as a picture")
        ):
            load(pictures)
