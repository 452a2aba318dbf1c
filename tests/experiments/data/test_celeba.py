"""CelebA's archive: small ones made here, the split, damage, memory, the real part."""

import json
from pathlib import Path
import re
import zipfile

import numpy as np
import pytest

from experiments import data
from experiments.console.errors import UserError
from experiments.data import cache
from experiments.data.celeba import _split
from experiments.data.images import Recipe, from_file
from tests.experiments import runs
from tests.experiments.data.pictures import encoded, picture
from tests.experiments.data.real import REAL, needs

NUMBERS = [*range(1, 21), 162771, 162772, 182638]  # 20 / 2 / 1 of the official parts
RECIPE = Recipe(64, 3, "crop", 140 / 178)

# Prepares sets of growing size; prints the most memory used after each, in KiB.
MEMORY = """
import io, json, resource, sys, zipfile
from pathlib import Path
from experiments import data

folder, content = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
for num in map(int, sys.argv[3:]):
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for i in range(num):
            archive.writestr(f"{i + 1:06d}.jpg", content)
    images = data.load("celeba", str(folder), data.Options(source="files"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([num, images.train.nbytes, peak]))
"""


def write_zip(path: Path, numbers: list[int], folder: str = "img_align_celeba/"):
    with zipfile.ZipFile(path, "w") as archive:
        for number in numbers:
            content = encoded(picture(89, 109, number))
            archive.writestr(f"{folder}{number:06d}.jpg", content)


@pytest.fixture
def celeba_dir(tmp_path: Path) -> Path:
    write_zip(tmp_path / "img_align_celeba.zip", NUMBERS)
    return tmp_path


def load(folder: Path, **options) -> data.Dataset:
    return data.load("celeba", str(folder), data.Options(source="files", **options))


def test_the_archive_becomes_images(celeba_dir: Path):
    images = load(celeba_dir)
    assert (len(images.train), len(images.valid), len(images.test)) == (20, 2, 1)
    assert (images.height, images.width, images.num_channels) == (64, 64, 3)
    for array, number in ((images.train[6], 7), (images.valid[1], 162772)):
        expected = from_file("x", encoded(picture(89, 109, number)), RECIPE)
        np.testing.assert_array_equal(array.reshape(64, 64, 3), expected)
    assert images.train_labels is None
    assert images.source is not None
    assert images.source["split"] == "the official parts, by the numbers of the images"
    assert images.source["subset"] == (
        "23 of 202599 images, stored as 89x109, not 178x218"
    )
    assert images.source["files"][0]["official"] is False


def test_arrays_are_kept_for_every_setting(
    celeba_dir: Path, tmp_path_factory: pytest.TempPathFactory
):
    elsewhere = str(tmp_path_factory.mktemp("cache"))
    first = load(celeba_dir)
    small = load(celeba_dir, image_size=16, image_mode="gray", image_resize="squash")
    assert small.train.shape == (20, 256, 1)
    (celeba_dir / "img_align_celeba.zip").touch()  # another file, for all we know
    again = load(celeba_dir, cache_dir=elsewhere)
    np.testing.assert_array_equal(first.train, again.train)
    assert len(list((celeba_dir / ".prepared").glob("celeba-*"))) == 2
    assert len(list(Path(elsewhere).glob("celeba-*"))) == 1


def test_arrays_are_mapped_and_not_held(celeba_dir: Path):
    train = load(celeba_dir).train
    while isinstance(train.base, np.ndarray) and not isinstance(train, np.memmap):
        train = train.base
    assert isinstance(train, np.memmap)


def test_the_partition_file_decides(celeba_dir: Path):
    path = celeba_dir / "list_eval_partition.txt"
    parts = {number: i % 3 for i, number in enumerate([*NUMBERS, 999999])}
    path.write_text("".join(f"{n:06d}.jpg {part}\n" for n, part in parts.items()))
    images = load(celeba_dir)
    assert (len(images.train), len(images.valid), len(images.test)) == (8, 8, 7)
    assert images.source is not None
    assert images.source["split"].endswith("by list_eval_partition.txt")
    assert [entry["name"] for entry in images.source["files"]] == [
        "img_align_celeba.zip",
        "list_eval_partition.txt",
    ]
    for text, message in (
        ("000001.jpg 0\n000002.jpg 3\n", "line 2 must be like"),
        ("000001.png 0\n", "line 1 must be like '000001.jpg 0', got '000001.png 0'"),
        ("000001.jpg 0\n", "must have a line for image 000002.jpg"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(message)):
            load(celeba_dir)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="must be ASCII text"):
        load(celeba_dir)


def test_the_official_split():
    rule, parts = _split(list(range(1, 202600)), None)
    assert [len(part) for part in parts.values()] == [162770, 19867, 19962]
    assert rule.startswith("the official parts")
    rule, parts = _split(list(range(1, 10001)), None)  # all in the training part
    assert [len(part) for part in parts.values()] == [8000, 1000, 1000]
    assert parts["valid"][0] == 8001
    assert rule.startswith("test: the last tenth")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no zip", "is truncated or damaged"),
        ("empty", "at least 10 images with names like 000001.jpg, got 0"),
        ("twice", "each image once, got b/000001.jpg twice"),
        ("no picture", "000005.jpg cannot be read as a picture"),
        ("large", "000005.jpg must have at most 1000 bytes"),
    ],
)
def test_a_wrong_archive_is_named(
    celeba_dir: Path, damage: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    path = celeba_dir / "img_align_celeba.zip"
    if damage == "no zip":
        path.write_bytes(b"PK\x03\x04 no zip")
    else:
        write_zip(path, list(range(11, 31)) if damage != "empty" else [])
        if damage == "large":
            monkeypatch.setattr("experiments.data.celeba._MAX_PICTURE", 1000)
        with zipfile.ZipFile(path, "a") as archive:
            if damage == "twice":
                archive.writestr("a/000001.jpg", b"x")
                archive.writestr("b/000001.jpg", b"x")
            elif damage != "empty":
                archive.writestr("000005.jpg", b"x" * 1001)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load(celeba_dir)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((celeba_dir / ".prepared").glob("celeba-*"))
    assert not list((celeba_dir / ".prepared").glob("*.tmp"))


def test_any_cut_or_flipped_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A zip has check sums of its members, and none of their names and places."""
    monkeypatch.setattr(cache, "_to_disk", lambda path: None)  # else minutes
    path = tmp_path / "img_align_celeba.zip"
    content = encoded(picture(17, 21, 0), quality=30)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10):
            archive.writestr(f"{number:06d}.jpg", content)
    stored = path.read_bytes()
    pixels = load(tmp_path, image_size=4).train[0]
    for cut in range(0, len(stored), len(stored) // 25):
        path.write_bytes(stored[:cut])
        with pytest.raises(UserError, match=re.escape(str(path))):
            load(tmp_path, image_size=4)
    generator = np.random.Generator(np.random.Philox(0))
    directory = range(stored.index(b"PK\x01\x02"), len(stored), 13)
    for place in [*generator.integers(0, len(stored), 40), *directory]:
        flipped = bytearray(stored)
        flipped[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        try:
            images = load(tmp_path, image_size=4)
        except UserError:
            continue
        assert (np.asarray(images.train) == pixels).all()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path):
    """At most a tenth of an image's 12288 bytes stays: its entry in the zip."""
    picture_file = tmp_path / "x"
    picture_file.write_bytes(encoded(picture(89, 109, 0)))
    folder = tmp_path / "celeba"
    folder.mkdir()
    code, out, err = runs.run(
        *(MEMORY, str(folder), str(picture_file), "300", "600", "2600"), program="-c"
    )
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    _, (_, small_bytes, small_peak), (_, large_bytes, large_peak) = lines
    growth = large_bytes - small_bytes
    assert growth > 19e6
    assert (large_peak - small_peak) * 1024 < growth / 10


@needs("celeba")
def test_the_real_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first of the 10000 images, from an archive of their own."""
    path = tmp_path / "img_align_celeba.zip"
    with (
        zipfile.ZipFile(REAL / "celeba" / path.name) as whole,
        zipfile.ZipFile(path, "w") as part,
    ):
        for number in range(1, 51):
            name = f"img_align_celeba/{number:06d}.jpg"
            part.writestr(name, whole.read(name))
    images = load(tmp_path)
    assert (len(images.train), len(images.valid), len(images.test)) == (40, 5, 5)
    assert "stored as 89x109" in data.describe(images)
    # Faces: brighter at the center than at the edges, redder than blue.
    mean = images.train.mean(0).reshape(64, 64, 3)
    assert mean[24:40, 24:40].mean() > mean[:8].mean() + 10
    assert mean[..., 0].mean() > mean[..., 2].mean() + 10
