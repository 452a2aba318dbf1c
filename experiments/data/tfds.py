"""The four sets through tensorflow-datasets, an optional package (extra ``data``)."""

from collections.abc import Iterator, Mapping
import contextlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.console.errors import UserError
from experiments.data import cache, files, images, splits
from experiments.data.arrays import mapped, recipe_of
from experiments.data.dataset import Dataset, Options
from experiments.data.images import Recipe


class _Source(NamedTuple):
    """A set's name in the package, the sizes of its parts, and its default recipe."""

    name: str
    sizes: Mapping[str, int]
    channels: int
    size: int | None = None
    crop: float = 1.0


_SOURCES = {
    "mnist": _Source("mnist", {"train": 60000, "test": 10000}, 1),
    "svhn": _Source("svhn_cropped", {"train": 73257, "test": 26032}, 3),
    "cifar10": _Source("cifar10", {"train": 50000, "test": 10000}, 3),
    "celeba": _Source(
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
    except ValueError:  # from a module that a test blocks: its spec is None
        return False


def load(name: str, data_dir: str | None, options: Options) -> Dataset:
    """A set in the parts, and the order, that tensorflow-datasets gives it.

    The first use downloads and prepares it, which needs TensorFlow. Then this function
    reads its ``data_source`` without TensorFlow, and keeps the arrays as those of the
    other sources.

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
    source = _SOURCES[name]
    if not is_installed():
        raise UserError(
            f"--data_source=tfds needs the package tensorflow-datasets: {_INSTALL}"
        )
    builder = _prepared_builder(source.name, data_dir)
    path = Path(builder.data_path)
    records = sorted(p for p in path.iterdir() if p.is_file())
    recipe = recipe_of(
        options, channels=source.channels, size=source.size, crop=source.crop
    )
    key = {"records": [cache.stamp(p) for p in records], **recipe._asdict()}

    def prepare(target: Path) -> dict[str, Any]:
        parts = builder.info.splits
        counts = {part: parts[part].num_examples for part in source.sizes}
        rule = _write(target, name, builder, counts, recipe)
        return files.source(
            "tfds",
            rule,
            files.subset(counts, source.sizes),
            [files.described(p) for p in records],
            version=f"{builder.info.full_name}",
        )

    arrays, entry = cache.prepared(
        cache.root_of(path.parent.parent, options.cache_dir), name, key, prepare
    )
    return mapped(name, arrays, entry)


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
    """Makes one line of every failure: of a network, a disk, a package, a record."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"tensorflow-datasets cannot {action}: {type(error).__name__}: {reason}"
        ) from None


def _write(
    target: Path, name: str, builder: Any, counts: Mapping[str, int], recipe: Recipe
) -> str:
    """Writes images and labels of every part; returns the rule of the split."""
    has_valid = "validation" in counts
    num_valid = 0 if has_valid else splits.num_valid(counts["train"], name)
    num_train = counts["train"] - num_valid
    ranges = {
        "train": ("train", range(num_train)),
        "valid": (
            ("validation", range(counts["validation"]))
            if has_valid
            else ("train", range(num_train, counts["train"]))
        ),
        "test": ("test", range(counts["test"])),
    }
    for split, (part, rows) in ranges.items():
        with _in_one_line(f"read {name}"):
            examples = builder.as_data_source(part)
        labels = np.full(len(rows), -1, np.int32)

        def decode(row: int, examples=examples, labels=labels, start=rows[0]):
            with _in_one_line(f"read {name}"):
                example = examples[row]
            if "label" in example:
                labels[row - start] = example["label"]
            return images.from_arrays(example["image"][None], recipe)[0]

        cache.write_array(
            target / f"{split}.npy",
            len(rows),
            images.stream(rows, decode, f"{name} {split}"),
        )
        if (labels >= 0).all():
            np.save(target / f"{split}_labels.npy", labels)
    return "its validation part" if has_valid else splits.VALID_RULE + ", in its order"
