"""The Frechet distance: against scipy's matrix root, closed forms, and merging."""

import functools

import numpy as np
import pytest
from scipy import linalg

from dspc_jax.evaluation import (
    Statistics,
    frechet_distance,
    frechet_distance_infinity,
    frechet_distance_of_statistics,
    merge,
    statistics,
)


def _features(seed, count, size=6, scale=1.0):
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(size, size)) * scale
    return generator.normal(size=(count, size)) @ mixing + generator.normal(size=size)


def _by_scipy(x, y):
    """The formula as it is written, with the general matrix square root."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(cov_x @ cov_y)
    step = x.mean(0) - y.mean(0)
    return step @ step + np.trace(cov_x + cov_y - 2 * np.real(root))


def test_it_is_the_formula_with_a_matrix_root():
    x, y = _features(0, 50), _features(1, 70, scale=0.5)
    np.testing.assert_allclose(frechet_distance(x, y), _by_scipy(x, y), rtol=1e-10)


def test_one_feature_is_a_gaussian_on_the_line():
    """``(m - m')^2 + (s - s')^2``."""
    x = np.asarray([[1.0], [3.0], [8.0]])
    y = np.asarray([[0.0], [1.0]])
    expected = (4 - 0.5) ** 2 + (np.std(x, ddof=1) - np.std(y, ddof=1)) ** 2
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-12)


def test_commuting_covariances_have_a_closed_form():
    """In one eigenbasis: the squared distances of the deviations add up."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    a, b = np.asarray([4.0, 1, 0.25, 9, 0]), np.asarray([1.0, 1, 4, 0, 0])
    x = Statistics(10, np.zeros(5), basis * a @ basis.T)
    y = Statistics(10, np.full(5, 2.0), basis * b @ basis.T)
    expected = 20 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    np.testing.assert_allclose(
        frechet_distance_of_statistics(x, y), expected, rtol=1e-12
    )


def test_fewer_images_than_features():
    """Both covariances are singular; the root follows from the centered images.

    The roots of the eigenvalues of ``S_x S_y`` are the singular values of the cross
    products of the images: an oracle that never sees a ``[D, D]`` matrix.
    """
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(12, 40)), 3 * generator.normal(size=(9, 40)) + 1
    a, b = (z - z.mean(0) for z in (x, y))
    shared = np.linalg.svd(a @ b.T / np.sqrt(11 * 8), compute_uv=False).sum()
    step = x.mean(0) - y.mean(0)
    expected = step @ step + np.sum(a**2) / 11 + np.sum(b**2) / 8 - 2 * shared
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-10)


@pytest.mark.parametrize("count", [9, 200])
def test_equal_sets_have_distance_zero_and_order_does_not_matter(count):
    x = _features(0, count, size=20)
    trace = np.trace(np.cov(x, rowvar=False))
    assert 0 <= frechet_distance(x, x[::-1]) < 1e-12 * trace
    y = _features(1, count, size=20)
    np.testing.assert_allclose(
        frechet_distance(x, y), frechet_distance(y, x), rtol=1e-10
    )


def test_it_sees_correlations_alone():
    """Equal means and variances, another correlation: not 0 (negative control)."""
    corners = np.asarray([[-1.0, -1], [1, 1], [-1, 1], [1, -1]])
    x, y = corners.repeat([3, 3, 1, 1], 0), corners.repeat([1, 1, 3, 3], 0)
    assert frechet_distance(x, y) > 0.1
    # Eigenvalues 1.5 and 0.5 times 8/7, along swapped axes.
    expected = 2 * (np.sqrt(1.5) - np.sqrt(0.5)) ** 2 * 8 / 7
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-12)


def test_constant_images_have_no_covariance():
    x, y = np.ones((4, 3)), np.zeros((5, 3))
    assert frechet_distance(x, y) == 3


def test_statistics_are_those_of_numpy_and_batches_merge():
    x = _features(0, 97) + 1e6  # the digits that sums of squares would lose
    batches = [x[:1], x[1:40], x[40:41], x[41:]]
    merged = functools.reduce(merge, map(statistics, batches))
    assert merged.num_images == 97
    np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-14)
    for covariance in (merged.covariance, statistics(x).covariance):
        np.testing.assert_allclose(
            covariance, np.cov(x - 1e6, rowvar=False), rtol=1e-8, atol=1e-8
        )
    naive = (x.T @ x - 97 * np.outer(x.mean(0), x.mean(0))) / 96
    assert np.abs(naive - merged.covariance).max() > 1e-4  # what merging avoids


def test_an_empty_set_changes_nothing():
    some = statistics(_features(0, 5, size=2))
    none = Statistics(0, np.zeros(2), np.zeros((2, 2)))
    for merged in (merge(some, none), merge(none, some)):
        assert merged.num_images == 5
        np.testing.assert_allclose(merged.mean, some.mean)
        np.testing.assert_allclose(merged.covariance, some.covariance)
    assert merge(none, none).num_images == 0


def test_extrapolation_removes_the_bias():
    """Features of one distribution: distance 0, and that of N samples is its bias.

    With 4000 samples in 16 dimensions the bias is 0.02; the line leaves a tenth of it.
    """
    generator = np.random.default_rng(0)
    data = Statistics(10**9, np.zeros(16), np.eye(16))
    samples = generator.normal(size=(4000, 16))
    result = frechet_distance_infinity(samples, data, min_size=400)
    biased = frechet_distance_of_statistics(statistics(samples), data)
    assert result.distances[-1] == pytest.approx(biased)
    assert biased > 0.015
    assert abs(result.distance) < 0.1 * biased + 3 * result.standard_error
    assert result.slope > 0
    assert result.sizes[0] == 400
    assert result.sizes[-1] == 4000
    # Negative control: a shift by 0.1 in each of 16 dimensions remains.
    shifted = frechet_distance_infinity(samples + 0.1, data, min_size=400)
    np.testing.assert_allclose(shifted.distance, 0.16, atol=0.03)


def test_extrapolation_is_a_function_of_its_inputs():
    samples, data = _features(0, 60), statistics(_features(1, 60))
    first, second, other = (
        frechet_distance_infinity(samples, data, min_size=20, num_sizes=5, seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.distances, second.distances)
    assert first.distance != other.distance


def test_bad_sets_are_refused():
    x = _features(0, 5)
    with pytest.raises(ValueError, match=r"x_features must be of shape \[N, D\]"):
        frechet_distance(x[0], x)
    with pytest.raises(ValueError, match="y_features must hold at least 2 points"):
        frechet_distance(x, x[:1])
    with pytest.raises(ValueError, match="one size, got 6 and 5"):
        frechet_distance(x, x[:, :5])
    bad = np.where(np.arange(5)[:, None] == 3, np.nan, x)
    with pytest.raises(ValueError, match="y_features must be finite, got .* row 3"):
        frechet_distance(x, bad)
    with pytest.raises(ValueError, match="x must be moments of at least 2 images"):
        frechet_distance_of_statistics(statistics(x[:1]), statistics(x))
    broken = statistics(x)._replace(mean=np.full(6, np.inf))
    with pytest.raises(ValueError, match="y must have finite moments"):
        frechet_distance_of_statistics(statistics(x), broken)
    with pytest.raises(ValueError, match="features of one size, got 6 and 4"):
        merge(statistics(x), statistics(x[:, :4]))
    with pytest.raises(ValueError, match="features of one size, got 6 and 4"):
        frechet_distance_of_statistics(statistics(x), statistics(x[:, :4]))
    with pytest.raises(ValueError, match="x_features must hold at least 5014 points"):
        frechet_distance_infinity(x, statistics(x))
    with pytest.raises(ValueError, match="min_size must be at least 2, got 1"):
        frechet_distance_infinity(x, statistics(x), min_size=1)
    with pytest.raises(ValueError, match="num_sizes must be at least 3, got 2"):
        frechet_distance_infinity(x, statistics(x), min_size=2, num_sizes=2)
