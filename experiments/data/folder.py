"""A plain folder of pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console.errors import UserError
from experiments.data import cache, files, images, splits
from experiments.data.arrays import mapped, recipe_of
from experiments.data.dataset import SPLITS, Dataset, Options

_ARRAY_OPTIONS = ("image_size", "image_mode", "image_resize")  # they change the arrays
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")


def load(data_dir: str | None, options: Options) -> Dataset:
    """The pictures in a folder and the folders in it.

    The SHA-256 of their names orders the pictures: it mixes those of all folders, and
    depends on nothing else. If the folder has folders ``train`` and ``test`` these are
    the parts, and ``valid`` is a third or, where there is none, the last tenth of
    ``train``. Otherwise the last tenth of all is the test part and the tenth before it
    for validation.

    Where every picture is in a folder below its part, and there are several, these
    folders are the classes, numbered in order of their names.

    Args:
        data_dir: the folder.
        options: see `Options`. All pictures must have one size unless ``image_size`` is
            given; they are gray if all are, unless ``image_mode`` is given.

    Returns:
        The images, prepared once and mapped into memory, with labels if there are.

    Raises:
        UserError: no folder, fewer than 10 pictures, pictures of different sizes, or
            one that cannot be read.
    """
    if options.source == "tfds":
        raise UserError(
            "--data_source must be auto or files where --dataset=folder, got tfds"
        )
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
        **{name: getattr(options, name) for name in _ARRAY_OPTIONS},
        "labels": labels is not None,
        "as_shown": True,  # earlier arrays are of the pictures as stored
    }

    def prepare(target: Path) -> dict[str, Any]:
        paths = [path for members in parts.values() for path in members]
        recipe = recipe_of(options, channels=_channels(paths, options))
        for split, members in parts.items():
            chunks = images.stream(
                members,
                lambda path: images.from_file(str(path), files.read(path), recipe),
                f"folder {split}",
            )
            cache.write_array(target / f"{split}.npy", len(members), chunks)
            if labels is not None:
                np.save(target / f"{split}_labels.npy", labels[split])
        return files.source("folder", rule, None, [_entry(root, paths)])

    arrays, source = cache.prepared(
        cache.root_of(root, options.cache_dir), "folder", key, prepare
    )
    return mapped("folder", arrays, source)


def _entry(root: Path, paths: list[Path]) -> dict[str, Any]:
    """Name, size and hash of all pictures together, for ``result.json``."""
    content = hashlib.sha256()  # of lines: name, hash
    for path in sorted(paths):
        content.update(f"{_name(path, root)} {files.digest(path)}\n".encode())
    return {
        "name": root.name,
        "bytes": sum(path.stat().st_size for path in paths),
        "sha256": content.hexdigest(),
    }


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _split(root: Path) -> tuple[str, dict[str, list[Path]]]:
    """The rule of the split, for the user, and the pictures of each part."""
    train, valid, test = (root / split for split in SPLITS)
    if not (train.is_dir() and test.is_dir()):
        rule = "test: a tenth by the hash of the name; validation: another"
        return rule, splits.tenths(_pictures(root, root))
    training = _pictures(train, root)
    if valid.is_dir():
        rule, validation = "the folders train, valid and test", _pictures(valid, root)
    else:
        rule = "the folders train and test; validation: a tenth of train by the hash "
        rule, tenth = rule + "of the name", len(training) // 10
        training, validation = training[:-tenth], training[-tenth:]
    return rule, {
        "train": training,
        "valid": validation,
        "test": _pictures(test, root),
    }


def _labels(root: Path, parts: dict[str, list[Path]]) -> dict[str, np.ndarray] | None:
    """Classes by names of folders, ``[n]`` int32 a part; None where there are none."""
    class_names = {}
    for split, paths in parts.items():
        steps = [path.relative_to(root).parts for path in paths]
        # Pictures of a part that is no folder of its own are below the root itself.
        depth = 1 if all(names[0] in SPLITS for names in steps) else 0
        if any(len(names) < depth + 2 for names in steps):
            return None
        class_names[split] = [names[depth] for names in steps]
    classes = sorted(set().union(*class_names.values()))
    if len(classes) < 2:
        return None
    return {
        split: np.array([classes.index(name) for name in names], np.int32)
        for split, names in class_names.items()
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
    """1 if all pictures are gray, else 3; refuses sizes that do not go together."""
    first_size, is_gray = images.header(paths[0])[0], True
    for path in paths:
        size, mode = images.header(path)
        is_gray &= mode in ("1", "L", "LA", "La")
        if size != first_size and not options.image_size:
            raise UserError(
                "--image_size must be given where pictures have different sizes, got "
                f"{first_size} of {paths[0]} and {size} of {path}"
            )
    return 1 if is_gray else 3
