"""CelebA from its official archive of aligned and cropped images."""

from pathlib import Path
import re
from typing import Any
import zipfile

import numpy as np

from experiments.console.errors import UserError
from experiments.data import cache, files, images, splits
from experiments.data.arrays import mapped, recipe_of
from experiments.data.dataset import SPLITS, Dataset, Options

_ARCHIVE, _PARTITION = "img_align_celeba.zip", "list_eval_partition.txt"
MARKS = (_ARCHIVE,)

# MD5 of the official files (torchvision checks the same).
_OFFICIAL = {
    _ARCHIVE: "00d2c5bc6d35e252742224ab0c1e8fcb",
    _PARTITION: "d32c9cbf5e040fd4025c592c306e6668",
}
_OFFICIAL_IMAGES, _OFFICIAL_SIZE = 202599, (178, 218)  # width, height
# The last image of the official training and validation parts.
_LAST_TRAIN, _LAST_VALID = 162770, 182637

# 140 of 178 pixels: the square with little but the face that the literature takes.
_CROP = 140 / 178
_SIZE = 64
_MAX_PICTURE = 16 * 2**20  # bytes; an official one has about 7000


def load(folder: Path, options: Options) -> Dataset:
    """202599 color images of faces, 178x218 pixels, made smaller: 64x64 by default.

    By default the square of 140/178 of the width at the center is resized with
    antialiasing; ``--image_resize=squash`` resizes the whole image, as the paper does.
    The arrays are prepared once, in one pass without holding them in memory, and mapped
    into memory afterward.

    Args:
        folder: holds ``img_align_celeba.zip`` and, for the official parts,
            ``list_eval_partition.txt``. Without it the parts follow from the numbers of
            the images. If a part would be empty (a subset), the last tenth of the
            images is the test part and the tenth before it for validation.
        options: see `Options`.

    Returns:
        162770 / 19867 / 19962 images if the archive is complete. No labels.

    Raises:
        UserError: a file that cannot be read or is damaged, or the disk is full.

    References:
        Liu et al., "Deep learning face attributes in the wild", ICCV 2015.
    """
    archive, partition = folder / _ARCHIVE, folder / _PARTITION
    recipe = recipe_of(options, channels=3, size=_SIZE, crop=_CROP)
    key = {
        "archive": cache.stamp(archive),
        "partition": cache.stamp(partition) if partition.exists() else None,
        **recipe._asdict(),
    }

    def prepare(target: Path) -> dict[str, Any]:
        with _opened(archive) as pictures:
            members = _members(archive, pictures)
            rule, parts = _split(sorted(members), _read_partition(partition))

            def picture(number: int) -> tuple[str, bytes]:
                return _content(archive, pictures, members[number])

            for split, numbers in parts.items():
                chunks = images.stream(
                    numbers,
                    lambda number: images.from_file(*picture(number), recipe),
                    f"celeba {split}",
                )
                cache.write_array(target / f"{split}.npy", len(numbers), chunks)
            location, content = picture(min(members))
            size, _ = images.header(content, location)
        return _source(rule, len(members), size, [archive, partition])

    arrays, source = cache.prepared(
        cache.root_of(folder, options.cache_dir), "celeba", key, prepare
    )
    return mapped("celeba", arrays, source)


def raw_images(folder: Path, split: str, num: int) -> np.ndarray:
    """The first images of a part as they are stored, neither cut nor resized.

    Args:
        folder: as for `load`.
        split: ``train``, ``valid`` or ``test``.
        num: the most images.

    Returns:
        ``[n, H, W, 3]`` uint8.

    Raises:
        UserError: a file that cannot be read, or images of several sizes.
    """
    archive, partition = folder / _ARCHIVE, folder / _PARTITION
    recipe = images.Recipe(size=None, channels=3, resize="crop")
    with _opened(archive) as pictures:
        members = _members(archive, pictures)
        _, parts = _split(sorted(members), _read_partition(partition))
        arrays = [
            images.from_file(*_content(archive, pictures, members[number]), recipe)
            for number in parts[split][:num]
        ]
    sizes = {array.shape for array in arrays}
    if len(sizes) != 1:
        raise UserError(f"{archive} must hold images of one size, got {len(sizes)}")
    return np.stack(arrays)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # damaged content can fail in any way
        raise UserError(f"{path} is truncated or damaged: {error}") from None


def _members(path: Path, archive: zipfile.ZipFile) -> dict[int, zipfile.ZipInfo]:
    """The images by their official numbers."""
    members: dict[int, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        match = re.search(r"(?:^|/)(\d{6})\.jpg$", info.filename)
        if match is None or info.filename.startswith("__MACOSX"):
            continue
        number = int(match[1])
        if number in members:
            raise UserError(
                f"{path} must hold each image once, got {info.filename} twice"
            )
        members[number] = info
    if len(members) < 10:
        raise UserError(
            f"{path} must hold at least 10 images with names like 000001.jpg, got "
            f"{len(members)}"
        )
    return members


def _content(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> tuple[str, bytes]:
    """Location, for errors, and bytes of a member; its check sum is verified."""
    location = f"{path}: {info.filename}"
    if info.file_size > _MAX_PICTURE:
        raise UserError(
            f"{location} must have at most {_MAX_PICTURE} bytes, got {info.file_size}"
        )
    try:
        return location, archive.read(info)
    except Exception as error:  # damaged content can fail in any way
        raise UserError(f"{location} is truncated or damaged: {error}") from None


def _read_partition(path: Path) -> dict[int, str] | None:
    """Part of each image by number, from lines like ``000001.jpg 0``; None: no file."""
    if not path.exists():
        return None
    parts = {}
    try:
        lines = files.read(path).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} must be ASCII text, got other bytes") from None
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"(\d{6})\.jpg\s+([012])\s*", line)
        if match is None:
            raise UserError(
                f"{path} line {number} must be like '000001.jpg 0', got {line[:40]!r}"
            )
        parts[int(match[1])] = SPLITS[int(match[2])]
    return parts


def _split(
    numbers: list[int], partition: dict[int, str] | None
) -> tuple[str, dict[str, list[int]]]:
    """The rule of the split, for the user, and the images of each part."""
    rule = "the official parts, by " + (
        "the numbers of the images" if partition is None else _PARTITION
    )
    parts: dict[str, list[int]] = {split: [] for split in SPLITS}
    for number in numbers:
        if partition is None:
            index = (number > _LAST_TRAIN) + (number > _LAST_VALID)
            parts[SPLITS[index]].append(number)
        elif number in partition:
            parts[partition[number]].append(number)
        else:
            raise UserError(
                f"{_PARTITION} must have a line for image {number:06d}.jpg, got none"
            )
    if all(parts.values()):
        return rule, parts
    rule = "test: the last tenth of the images; validation: the tenth before it"
    return rule, splits.tenths(numbers)


def _source(
    rule: str, num: int, size: tuple[int, int], paths: list[Path]
) -> dict[str, Any]:
    """The entry in ``result.json``, hashes included: taken once, when preparing."""
    differences = []
    if num != _OFFICIAL_IMAGES:
        differences.append(f"{num} of {_OFFICIAL_IMAGES} images")
    if size != _OFFICIAL_SIZE:
        differences.append("stored as {}x{}, not {}x{}".format(*size, *_OFFICIAL_SIZE))
    return files.source(
        "files",
        rule,
        ", ".join(differences) or None,
        [
            files.described(path, files.digest(path, "md5") == _OFFICIAL[path.name])
            for path in paths
            if path.exists()
        ],
    )
