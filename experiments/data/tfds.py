"""The four sets through tensorflow-datasets, an optional package (extra ``data``)."""

from collections.abc import Iterator, Mapping
import contextlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.console.errors import UserError
from experiments.data import cache, files, images
from experiments.data.arrays import mapped, recipe_of
from experiments.data.dataset import Dataset, Options
from experiments.data.images import Recipe


class _Set(NamedTuple):
    """Its name there, the sizes of its parts, and what it gets by default."""

    name: str
    sizes: Mapping[str, int]
    channels: int
    size: int | None = None
    crop: float = 1.0


_SETS = {
    "mnist": _Set("mnist", {"train": 60000, "test": 10000}, 1),
    "svhn": _Set("svhn_cropped", {"train": 73257, "test": 26032}, 3),
    "cifar10": _Set("cifar10", {"train": 50000, "test": 10000}, 3),
    "celeba": _Set(
        "celeb_a",
        {"train": 162770, "validation": 19867, "test": 19962},
        3,
        size=64,
        crop=140 / 178,
    ),
}
_INSTALL = "pip install 'dspc_jax[data]'"


def is_installed() -> bool:
    """Whether there is tensorflow-datasets; TensorFlow itself is only for preparing."""
    try:
        return importlib.util.find_spec("tensorflow_datasets") is not None
    except ValueError:  # what a module that is blocked for a test has as its spec
        return False


def load(name: str, data_dir: str | None, options: Options) -> Dataset:
    """A set in the parts, and the order, that tensorflow-datasets gives it.

    The first use downloads and prepares it, which needs TensorFlow. Then its
    ``data_source`` is read, without TensorFlow, and the arrays are kept as those of the
    other sources are.

    Args:
        name: ``mnist``, ``svhn``, ``cifar10`` or ``celeba``.
        data_dir: where tensorflow-datasets keeps its data; None: its own default.
        options: see `Options`.

    Returns:
        The set. Where it has no validation part, the last tenth of the training images
        in their order there, at most 5000; this is not the order of the files.

    Raises:
        UserError: a package is missing, or the download or preparation failed.
    """
    one = _SETS[name]
    if not is_installed():
        raise UserError(
            f"--data_source=tfds needs the package tensorflow-datasets: {_INSTALL}"
        )
    builder = _prepared_builder(one.name, data_dir)
    path = Path(builder.data_path)
    records = sorted(p for p in path.iterdir() if p.is_file())
    recipe = recipe_of(options, channels=one.channels, size=one.size, crop=one.crop)
    key = {"records": [cache.stamp(p) for p in records], **recipe._asdict()}

    def prepare(place: Path) -> dict[str, Any]:
        found = {part: builder.info.splits[part].num_examples for part in one.sizes}
        rule = _write(place, name, builder, found, recipe)
        return files.source(
            "tfds",
            rule,
            files.subset(found, one.sizes),
            [files.described(p) for p in records],
            version=f"{builder.info.full_name}",
        )

    place, source = cache.prepared(
        cache.root_of(path.parent.parent, options.cache_dir), name, key, prepare
    )
    return mapped(name, place, source)


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    """A builder whose data are on the disk, downloaded and prepared if need be."""
    with _in_one_line(f"prepare {name}"):
        tfds = importlib.import_module("tensorflow_datasets")
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        if builder.is_prepared():
            return builder
        if importlib.util.find_spec("tensorflow") is None:
            raise UserError(
                f"preparing {name} needs TensorFlow, once; reading it does not: "
                + _INSTALL
            )
        root = Path(builder.data_path).parent.parent
        with cache.locked(root / f".{name}.lock", name):
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare(file_format="array_record")
        return builder


@contextlib.contextmanager
def _in_one_line(action: str) -> Iterator[None]:
    """Makes one line of what fails there: a network, a disk, a package, a record."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise UserError(
            f"tensorflow-datasets cannot {action}: {type(error).__name__}: {words}"
        ) from None


def _write(
    place: Path, name: str, builder: Any, found: Mapping[str, int], recipe: Recipe
) -> str:
    """Writes images and labels of every part; returns the rule of the split."""
    has_valid = "validation" in found
    num_valid = 0 if has_valid else files.num_valid(found["train"], name)
    last_train = found["train"] - num_valid
    ranges = {
        "train": ("train", range(last_train)),
        "valid": (
            ("validation", range(found["validation"]))
            if has_valid
            else ("train", range(last_train, found["train"]))
        ),
        "test": ("test", range(found["test"])),
    }
    for split, (part, rows) in ranges.items():
        with _in_one_line(f"read {name}"):
            examples = builder.as_data_source(part)
        labels = np.full(len(rows), -1, np.int32)

        def decode(row: int, examples=examples, labels=labels, first=rows[0]):
            with _in_one_line(f"read {name}"):
                example = examples[row]
            if "label" in example:
                labels[row - first] = example["label"]
            return images.from_arrays(example["image"][None], recipe)[0]

        cache.write_array(
            place / f"{split}.npy",
            len(rows),
            images.stream(rows, decode, f"{name} {split}"),
        )
        if (labels >= 0).all():
            np.save(place / f"{split}_labels.npy", labels)
    return "its validation part" if has_valid else files.VALID_RULE + ", in its order"
