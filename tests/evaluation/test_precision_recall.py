"""Precision, recall, density, coverage and diversity, against all pairs in NumPy."""

import numpy as np
import pytest

from dspc_jax.evaluation import diversity, precision_recall
from dspc_jax.evaluation.features import blocks_of_rows


def _features(seed, count, size=4, scale=1.0, shift=0.0):
    return scale * np.random.default_rng(seed).normal(size=(count, size)) + shift


def _distances(x, y):
    return np.linalg.norm(x[:, None] - y[None], axis=-1)


def _by_enumeration(samples, data, k):
    """The definitions of the two papers, word by word."""

    def radii(points):  # the nearest point is the point itself
        return np.sort(_distances(points, points), 1)[:, k]

    in_ball_of_data = _distances(samples, data) <= radii(data)[None]
    in_ball_of_sample = _distances(data, samples) <= radii(samples)[None]
    return (
        in_ball_of_data.any(1).mean(),
        in_ball_of_sample.any(1).mean(),
        in_ball_of_data.sum(1).mean() / k,
        in_ball_of_data.any(0).mean(),
    )


@pytest.mark.parametrize(
    ("num_neighbors", "block_size"), [(3, 1), (3, 7), (3, 1000), (1, 7)]
)
def test_blocks_of_any_size_give_the_definitions(num_neighbors, block_size):
    samples, data = _features(0, 40, scale=0.7), _features(1, 31)
    shares = precision_recall(
        samples, data, num_neighbors=num_neighbors, block_size=block_size
    )
    expected = _by_enumeration(samples, data, num_neighbors)
    np.testing.assert_allclose(shares, expected, rtol=1e-6)
    assert min(shares) > 0.2  # none is trivially 0 or 1
    assert shares.precision < 1


def test_sets_that_are_far_apart_share_nothing():
    shares = precision_recall(_features(0, 50), _features(1, 50, shift=100))
    assert shares == (0, 0, 0, 0)


def test_collapse_costs_recall_and_noise_costs_precision():
    data = _features(0, 400, size=8)
    collapsed = precision_recall(_features(1, 400, size=8, scale=0.2), data)
    assert collapsed.precision > 0.9
    assert collapsed.recall < 0.1
    assert collapsed.coverage < 0.5
    noisy = precision_recall(_features(1, 400, size=8, scale=3), data)
    assert noisy.precision < 0.2
    assert noisy.recall > 0.9
    assert noisy.density < 0.1


def test_one_distribution_has_the_promised_values():
    """Density 1 and coverage ``1 - 2 ** -k``, derived for two sets of one distribution.

    Shares of 2000 balls scatter by about 0.01 (some more: balls overlap).
    """
    samples, data = _features(0, 2000), _features(1, 2000)
    shares = precision_recall(samples, data, num_neighbors=3)
    np.testing.assert_allclose(shares.density, 1, atol=0.05)
    np.testing.assert_allclose(shares.coverage, 1 - 2**-3, atol=0.03)


def test_an_outlier_of_the_data_counts_for_precision_and_not_for_density():
    data = np.concatenate([_features(0, 200), [[50.0] * 4]])
    samples = _features(1, 100, shift=20)
    shares = precision_recall(samples, data)
    assert shares.precision == 1  # the ball around the outlier holds all samples
    assert shares.density == pytest.approx(1 / 5)
    assert shares.coverage == pytest.approx(1 / 201)


def test_copies_count_as_neighbours():
    """Integer grids: many equal distances, and several copies of each point."""
    generator = np.random.default_rng(0)
    samples, data = (generator.integers(0, 3, (30, 2)).astype(float) for _ in range(2))
    for k in (1, 4):
        shares = precision_recall(samples, data, num_neighbors=k)
        np.testing.assert_allclose(shares, _by_enumeration(samples, data, k), rtol=1e-6)


def test_rows_are_visited_once():
    for num_rows in (1, 2, 6, 11):
        for block_size in (1, 2, 4, 6, 12):
            rows, is_row = map(np.asarray, blocks_of_rows(num_rows, block_size))
            assert rows.shape == is_row.shape
            assert rows.shape[1] <= block_size
            np.testing.assert_array_equal(rows[is_row], np.arange(num_rows))
            assert np.all((rows >= 0) & (rows < num_rows))


@pytest.mark.parametrize("block_size", [3, 1000])
def test_diversity_is_the_ratio_of_mean_distances(block_size):
    samples, data = _features(0, 31, scale=2), _features(1, 20)
    means = [
        _distances(points, points).sum() / len(points) / (len(points) - 1)
        for points in (samples, data)
    ]
    np.testing.assert_allclose(
        diversity(samples, data, block_size=block_size), means[0] / means[1], rtol=1e-5
    )


def test_diversity_of_collapsed_samples_and_of_data_itself():
    data = _features(0, 50)
    assert diversity(np.repeat(data[:1], 10, 0), data) < 1e-3
    assert diversity(data, data) == 1
    np.testing.assert_allclose(diversity(3 * data, data), 3, rtol=1e-5)
    assert diversity(np.ones((3, 2)), np.zeros((3, 2))) != 1
    assert np.isinf(diversity(data, np.zeros((3, 4))))


def test_bad_sets_are_refused():
    x = _features(0, 6)
    with pytest.raises(ValueError, match="sample_features must hold at least 6 points"):
        precision_recall(x[:5], x)
    with pytest.raises(ValueError, match="data_features must hold at least 4 points"):
        precision_recall(x, x[:3], num_neighbors=3)
    with pytest.raises(ValueError, match="num_neighbors must be at least 1, got 0"):
        precision_recall(x, x, num_neighbors=0)
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        precision_recall(x, x, block_size=0)
    with pytest.raises(ValueError, match="one size, got 4 and 3"):
        precision_recall(x, x[:, :3])
    with pytest.raises(ValueError, match="data_features must hold at least 2 points"):
        diversity(x, x[:1])
    with pytest.raises(ValueError, match="one size, got 4 and 3"):
        diversity(x, x[:, :3])
