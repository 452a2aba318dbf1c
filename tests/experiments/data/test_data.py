"""Data sets, their checks, batches, and the units of the leaf families."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments import data
from experiments.console.errors import UserError
from experiments.engine.batches import batch_indices
from experiments.models.preprocessing import per_example_bits, preprocessing

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
    given = (digits.train_labels, digits.valid_labels, digits.test_labels)
    for part, part_labels in zip(parts, given, strict=True):
        assert part_labels is not None
        assert part_labels.dtype == np.int32
        assert part_labels.tolist() == [label_of[image.tobytes()] for image in part]
    for part_labels in given[1:]:
        assert part_labels is not None
        counts = np.bincount(part_labels)
        assert counts.min() >= 17
        assert counts.max() <= 18
    assert data.describe(digits) == (
        "data: digits, complete, 1444 / 177 / 176 images for training, validation and "
        "test, 8x8x1"
    )


@pytest.mark.parametrize(
    ("name", "data_dir", "words"),
    [
        ("mnist", None, "--data_dir must name the folder"),
        ("mnist", "/nowhere", "must be an existing folder, got '/nowhere'"),
        ("mnist", ".", "neither mnist/train-images"),
        ("imagenet", None, "--dataset must be one of digits, mnist"),
    ],
)
def test_unknown_places_are_named(name: str, data_dir: str | None, words: str):
    with pytest.raises(UserError, match=re.escape(words)):
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
@pytest.mark.parametrize("num_values", [17, 256])
def test_levels_survive_the_way_to_leaf_values_and_back(
    leaf: str, num_values: int, key: jax.Array
):
    codec = preprocessing(leaf, num_values)
    levels = jnp.arange(num_values, dtype=jnp.uint8).reshape(1, -1, 1)
    x = codec.encode(key, levels)
    assert x.dtype == jnp.float32
    assert x.shape == levels.shape
    grey = codec.to_unit(x)
    assert grey.min() >= 0
    assert grey.max() <= 1
    back = codec.to_levels(x)
    assert back.dtype == jnp.uint8
    top = num_values - 1
    if leaf == "bernoulli":
        assert set(np.unique(x)) == {0.0, 1.0}
        np.testing.assert_array_equal(back, jnp.where(levels > top / 2, top, 0))
    else:
        np.testing.assert_array_equal(back, levels)
    wild = codec.to_levels(jnp.array([-3.0, 1e6]))
    np.testing.assert_array_equal(wild, [0, top])


def test_bits_of_the_uniform_code(key: jax.Array):
    """256 equally likely levels cost 8 bits, as integers and dequantised."""
    num_dims = 12
    for leaf, log_p in (("categorical", -math.log(256)), ("normal", 0.0)):
        codec = preprocessing(leaf, 256)
        bits = per_example_bits(jnp.full((3,), num_dims * log_p), num_dims, codec)
        np.testing.assert_allclose(bits, [8.0] * 3, rtol=1e-6)
    # The noise of dequantisation is uniform within its cell and uses the key.
    codec = preprocessing("normal", 4)
    x = codec.encode(key, jnp.full((20000,), 2, jnp.uint8))
    assert 0.5 <= x.min() < 0.501
    assert 0.749 < x.max() < 0.75
    assert abs(x.mean() - 0.625) < 4 * (0.25 / 12**0.5) / 20000**0.5


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
    where = {row.tobytes(): i for i, row in enumerate(whole.train)}
    places = [where[row.tobytes()] for row in part.train]
    assert places == sorted(places)
    assert places[0] == 0
    assert max(np.diff(places)) == 11
    np.testing.assert_array_equal(part.train_labels, whole.train_labels[places])
    np.testing.assert_array_equal(part.test, whole.test)
    least = data.load("digits", None, data.Options(train_fraction=1e-6))
    assert len(least.train) == 1
    assert least.num_classes == whole.num_classes == 10  # those of the other splits
