"""Data sets, their checks, batches, and the units of the leaf families."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from dspc_jax.learning.batches import batch_indices
from experiments import data
from experiments.console.errors import UserError
from experiments.models.preprocessing import preprocessing

LEAVES = ("binomial", "normal", "bernoulli", "categorical", "discretized_logistic")


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_digits_are_split_once_and_evenly():
    digits = data.load("digits", None)
    values, labels = load_digits(return_X_y=True)
    parts = (digits.train, digits.valid, digits.test)
    assert [len(part) for part in parts] == [1444, 177, 176]
    assert all(part.dtype == np.uint8 and part.shape[1:] == (64, 1) for part in parts)
    assert digits.num_channels == 1
    together = np.concatenate(parts)
    assert together.min() == 0
    assert together.max() == digits.num_values - 1 == 16
    assert sorted(rows(together)) == sorted(rows(values.astype(np.uint8)))
    label_of = dict(
        zip(map(bytes, values.astype(np.uint8)), labels.tolist(), strict=True)
    )
    assert len(label_of) == len(labels)  # no copies: the parts are disjoint
    labels_of_parts = (digits.train_labels, digits.valid_labels, digits.test_labels)
    for part, part_labels in zip(parts, labels_of_parts, strict=True):
        assert part_labels is not None
        assert part_labels.dtype == np.int32
        assert part_labels.tolist() == [label_of[image.tobytes()] for image in part]
    for part_labels in labels_of_parts[1:]:
        assert part_labels is not None
        counts = np.bincount(part_labels)
        assert counts.min() >= 17
        assert counts.max() <= 18
    assert data.describe(digits) == (
        "data: digits, complete, 1444 / 177 / 176 images for training, validation and "
        "test, 8x8x1"
    )


@pytest.mark.parametrize(
    ("name", "data_dir", "message"),
    [
        ("mnist", None, "--data_dir must name the folder"),
        ("mnist", "/nowhere", "must be an existing folder, got '/nowhere'"),
        ("mnist", ".", "got a folder with neither mnist/train-images"),
        ("imagenet", None, "--dataset must be one of digits, mnist"),
    ],
)
def test_unknown_places_are_named(name: str, data_dir: str | None, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        data.load(name, data_dir, data.Options(source="files"))


def test_batches_are_cut_from_whole_epochs():
    whole = batch_indices(3, 0, 30, 7, 10).reshape(-1)
    for epoch in whole.reshape(-1, 10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert whole[:10].tolist() != whole[10:20].tolist()
    other = batch_indices(4, 0, 30, 7, 10).reshape(-1)
    assert whole.tolist() != other.tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 10, 25])
def test_batches_depend_on_seed_and_step_alone(batch_size: int):
    whole = batch_indices(5, 0, 20, batch_size, 10)
    assert whole.shape == (20, batch_size)
    pieces = [batch_indices(5, step, 1, batch_size, 10)[0] for step in range(20)]
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_array_equal(whole[13:], batch_indices(5, 13, 7, batch_size, 10))


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_of_the_flags_has_a_codec(leaf: str, key: jax.Array):
    codec = preprocessing(leaf, 17)
    levels = jnp.arange(17, dtype=jnp.uint8)
    back = codec.to_levels(codec.encode(key, levels))
    expected = jnp.where(levels > 8, 16, 0) if leaf == "bernoulli" else levels
    np.testing.assert_array_equal(back, expected)
    slope = codec.mean_log_slope(jnp.zeros(3))
    np.testing.assert_allclose(slope, -math.log(17) if leaf == "normal" else 0)


def test_another_leaf_has_none():
    with pytest.raises(ValueError, match="leaf must be one of .*, got 'poisson'"):
        preprocessing("poisson", 17)


def test_pictures_have_the_full_range():
    levels = np.array([[[0], [16], [8], [4]]], np.uint8)
    dataset = data.load("digits", None)._replace(height=2, width=2)
    picture = data.to_images(dataset, levels)
    np.testing.assert_array_equal(picture[0, :, :, 0], [[0, 255], [128, 64]])


def test_a_part_of_the_training_images_is_spread_over_all_of_them():
    whole = data.load("digits", None)
    part = data.load("digits", None, data.Options(train_fraction=0.1))
    assert len(part.train) == 144
    assert part.train_labels is not None
    assert whole.train_labels is not None
    index_of = {row.tobytes(): i for i, row in enumerate(whole.train)}
    places = [index_of[row.tobytes()] for row in part.train]
    assert places == sorted(places)
    assert places[0] == 0
    assert max(np.diff(places)) == 11
    np.testing.assert_array_equal(part.train_labels, whole.train_labels[places])
    np.testing.assert_array_equal(part.test, whole.test)
    least = data.load("digits", None, data.Options(train_fraction=1e-6))
    assert len(least.train) == 1
    assert least.num_classes == whole.num_classes == 10  # those of the other splits
