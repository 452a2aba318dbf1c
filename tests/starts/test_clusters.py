"""k-means of many patches."""

import jax
import numpy as np
import pytest

from dspc_jax.starts import clusters


def test_separate_groups_are_found_in_every_patch():
    """Three groups far apart in columns 0 and 1, two others in columns 2 to 4."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, 400), rng.integers(0, 2, 400)
    table = rng.normal(size=(400, 5)).astype(np.float32) * 0.1
    table[:, :2] += 5 * np.stack([first, first**2], 1)
    table[:, 2:] += 9 * second[:, None]
    patches = [np.array([0, 1]), np.array([2, 3, 4])]
    result = clusters.labels(jax.random.key(3), table, patches, 8, num_fitted=100)
    assert result.shape == (2, 400)
    assert result.dtype == np.uint8
    # Each cluster lies within one group.
    for labels, groups in zip(result, (first, second), strict=True):
        for label in np.unique(labels):
            assert len(np.unique(groups[labels == label])) == 1


@pytest.mark.parametrize("num_rows", [1, 3])
def test_fewer_rows_than_clusters(num_rows):
    table = np.arange(num_rows, dtype=np.float32)[:, None]
    result = clusters.labels(jax.random.key(0), table, [np.array([0])], 5)
    assert len(np.unique(result)) == num_rows


def test_equal_rows_are_one_cluster():
    table = np.zeros((20, 3), np.float32)
    result = clusters.labels(jax.random.key(0), table, [np.arange(3)], 4)
    assert len(np.unique(result)) == 1


def test_the_nearest_center_in_numpy():
    rng = np.random.default_rng(0)
    rows, centers = rng.normal(size=(50, 3)), rng.normal(size=(4, 3))
    distance = ((rows[:, None] - centers) ** 2).sum(-1)
    result = clusters.nearest(rows.astype(np.float32), centers.astype(np.float32))
    np.testing.assert_array_equal(result, distance.argmin(1))
