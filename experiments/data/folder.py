"""A plain folder of pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console.errors import UserError
from experiments.data import cache, files, images
from experiments.data.arrays import mapped, recipe_of
from experiments.data.dataset import SPLITS, Dataset, Options

_SHAPING = ("image_size", "image_mode", "image_resize")  # options that change arrays
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")


def load(data_dir: str | None, options: Options) -> Dataset:
    """The pictures in a folder and the folders in it.

    Pictures are ordered by the SHA-256 of their names, which mixes what is sorted into
    folders, and depends on nothing else. If the folder has folders ``train`` and
    ``test`` these are the parts, and ``valid`` is a third or, where there is none, the
    last tenth of ``train``. Otherwise the last tenth of all is the test part and the
    tenth before it for validation.

    Where every picture is in a folder below its part, and there are several, these
    folders are the classes, numbered in order of their names.

    Args:
        data_dir: the folder.
        options: see `Options`. All pictures must have one size unless ``image_size`` is
            given; they are grey if all are, unless ``image_mode`` is given.

    Returns:
        The images, prepared once and mapped into memory, with labels if there are.

    Raises:
        UserError: no folder, fewer than 10 pictures, pictures of different sizes, or
            one that cannot be read.
    """
    if options.source == "tfds":
        raise UserError("--data_source must be auto or files where --dataset=folder")
    if data_dir is None or not Path(data_dir).is_dir():
        raise UserError(f"--data_dir must name a folder of pictures, got {data_dir!r}")
    root = Path(data_dir)
    rule, parts = _split(root)
    labels = _labels(root, parts)
    listing = [
        [split, _name(path, root), *cache.stamp(path)]
        for split, paths in parts.items()
        for path in paths
    ]
    key = {
        "listing": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
        **{name: getattr(options, name) for name in _SHAPING},
        "labels": labels is not None,
    }

    def prepare(place: Path) -> dict[str, Any]:
        paths = [path for part in parts.values() for path in part]
        recipe = recipe_of(options, channels=_channels(paths, options))
        for split, members in parts.items():
            pieces = images.stream(
                members,
                lambda path: images.from_file(str(path), files.read(path), recipe),
                f"folder {split}",
            )
            cache.write_array(place / f"{split}.npy", len(members), pieces)
            if labels is not None:
                np.save(place / f"{split}_labels.npy", labels[split])
        content = hashlib.sha256()
        for path in sorted(paths):
            content.update(f"{_name(path, root)} {files.digest(path)}\n".encode())
        entry = {
            "name": root.name,
            "bytes": sum(path.stat().st_size for path in paths),
            "sha256": content.hexdigest(),  # of lines: name, hash
        }
        return files.source("folder", rule, None, [entry])

    place, source = cache.prepared(
        cache.root_of(root, options.cache_dir), "folder", key, prepare
    )
    return mapped("folder", place, source)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _split(root: Path) -> tuple[str, dict[str, list[Path]]]:
    """The rule of the split, in words, and the pictures of each part."""
    train, valid, test = (root / split for split in SPLITS)
    if not (train.is_dir() and test.is_dir()):
        pictures = _pictures(root, root)
        tenth = len(pictures) // 10
        return "test: a tenth by the hash of the name; validation: another", {
            "train": pictures[: -2 * tenth],
            "valid": pictures[-2 * tenth : -tenth],
            "test": pictures[-tenth:],
        }
    pictures = _pictures(train, root)
    if valid.is_dir():
        rule, rest = "the folders train, valid and test", _pictures(valid, root)
    else:
        rule = "the folders train and test; validation: a tenth of train by the hash "
        rule, tenth = rule + "of the name", len(pictures) // 10
        pictures, rest = pictures[:-tenth], pictures[-tenth:]
    return rule, {"train": pictures, "valid": rest, "test": _pictures(test, root)}


def _labels(root: Path, parts: dict[str, list[Path]]) -> dict[str, np.ndarray] | None:
    """Classes by names of folders, ``[n]`` int32 a part; None where there are none."""
    names = {}
    for split, paths in parts.items():
        below = [path.relative_to(root).parts for path in paths]
        # Pictures of a part that is no folder of its own are below the root itself.
        depth = 1 if all(part[0] in SPLITS for part in below) else 0
        if any(len(part) < depth + 2 for part in below):
            return None
        names[split] = [part[depth] for part in below]
    classes = sorted(set().union(*names.values()))
    if len(classes) < 2:
        return None
    return {
        split: np.array([classes.index(name) for name in found], np.int32)
        for split, found in names.items()
    }


def _pictures(folder: Path, root: Path) -> list[Path]:
    """All pictures below a folder, ordered by the hash of their names."""
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]
    if len(paths) < 10:
        raise UserError(
            f"{folder} must hold at least 10 pictures ({', '.join(_ENDINGS)}), got "
            f"{len(paths)}"
        )

    def order(path: Path) -> str:
        return hashlib.sha256(_name(path, root).encode()).hexdigest()

    return sorted(paths, key=order)


def _channels(paths: list[Path], options: Options) -> int:
    """1 if all pictures are grey, else 3; refuses sizes that do not go together."""
    first_size, grey = images.header(paths[0])[0], True
    for path in paths:
        size, mode = images.header(path)
        grey &= mode in ("1", "L", "LA")
        if size != first_size and not options.image_size:
            raise UserError(
                "--image_size must be given where pictures have different sizes: "
                f"{paths[0]} has {first_size}, {path} has {size}"
            )
    return 1 if grey else 3
