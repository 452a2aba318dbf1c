"""The type of a data set, and the options that a user has."""

from typing import Any, NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Images with values ``0 .. num_values - 1``, pixels in row-major order.

    Attributes:
        name: as given to ``--dataset``; of a table, its own after it.
        train: ``[n, V, C]`` uint8; V = height * width variables, C channels. May be a
            view of a file that is mapped into memory: take rows of it, not all of it.
        valid: ``[n, V, C]`` uint8, never trained on.
        test: ``[n, V, C]`` uint8, looked at once, at the end of a run.
        height: rows of an image.
        width: columns of an image.
        num_values: levels of a channel.
        train_labels: classes of the training images, ``[n]`` int32 from 0, or None
            where they are not known.
        valid_labels: the same of the validation images.
        test_labels: the same of the test images.
        source: where the images came from, as ``result.json`` has it: see
            `experiments.data.files.source`.
        is_table: whether an image is a row of a table, so that neighbors mean nothing.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    height: int
    width: int
    num_values: int
    train_labels: np.ndarray | None = None
    valid_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    source: dict[str, Any] | None = None
    is_table: bool = False

    @property
    def num_channels(self) -> int:
        """C, the channels of a pixel."""
        return self.train.shape[-1]

    @property
    def num_classes(self) -> int | None:
        """Classes of all splits: a part of the training images may lack one.

        None where those of the training images are not known.
        """
        if self.train_labels is None:
            return None
        splits = (self.train_labels, self.valid_labels, self.test_labels)
        return 1 + max(int(labels.max()) for labels in splits if labels is not None)


class Options(NamedTuple):
    """Options of a data set that has files.

    Attributes:
        source: ``files`` (official archives), ``tfds`` (tensorflow-datasets) or
            ``auto``: files where the folder holds them, else tfds.
        cache_dir: folder of prepared arrays; None: beside the data.
        image_size: rows and columns of an image; 0: the set's own (64 for celeba).
        image_mode: ``gray``, ``rgb`` or ``auto``: the set's own.
        image_resize: ``crop``: a square from the center, then resized with antialiasing
            (bicubic); ``squash``: the whole image, its sides not kept in proportion
            (bilinear with antialiasing).
        train_fraction: share of the training images that is used.
        debd_name: of a table of debd.
    """

    source: str = "auto"
    cache_dir: str | None = None
    image_size: int = 0
    image_mode: str = "auto"
    image_resize: str = "crop"
    train_fraction: float = 1.0
    debd_name: str = "nltcs"

    @property
    def without_images(self) -> "Options":
        """The same with the defaults of everything that says what images are like."""
        own = {name: getattr(self, name) for name in ("source", "cache_dir")}
        return Options(**own, debd_name=self.debd_name)


SPLITS = ("train", "valid", "test")


def describe(dataset: Dataset) -> str:
    """One line for the log: name and size of the set, and whether it is complete."""
    sizes = [len(getattr(dataset, split)) for split in SPLITS]
    source = dataset.source or {}
    subset = source.get("subset")
    status = "" if not source else f"SUBSET ({subset})" if subset else "complete"
    return (
        f"data: {dataset.name}, "
        + (f"{status}, " if status else "")
        + f"{sizes[0]} / {sizes[1]} / {sizes[2]} "
        + ("rows" if dataset.is_table else "images")
        + " for training, validation and test, "
        + (
            f"{dataset.width} variables"
            if dataset.is_table
            else f"{dataset.height}x{dataset.width}x{dataset.num_channels}"
        )
    )


def to_images(dataset: Dataset, levels: np.ndarray) -> np.ndarray:
    """Levels of images as 8-bit pictures.

    Args:
        dataset: whose images they are, or could be.
        levels: ``[n, V, C]`` uint8 with V = height * width.

    Returns:
        ``[n, height, width, C]`` uint8; the highest level becomes 255. Rows of a table
        are those of one picture, ``[1, n, V, C]``.
    """
    gray = np.round(levels.astype(np.float32) * (255.0 / (dataset.num_values - 1)))
    shape = len(levels), dataset.height, dataset.width, levels.shape[-1]
    if dataset.is_table:
        shape = 1, *levels.shape
    return gray.astype(np.uint8).reshape(shape)
