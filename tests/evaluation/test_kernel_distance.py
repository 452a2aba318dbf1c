"""The kernel distance: against sums over pairs, and what its error promises."""

import numpy as np
import pytest

from dspc_jax.evaluation import kernel_distance


def _by_enumeration(x, y):
    """The unbiased estimator, pair by pair."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    between = sum(kernel(a, b) for a in x for b in y)
    return within_x / n / (n - 1) + within_y / m / (m - 1) - 2 * between / n / m


def _features(seed, count, size=5, shift=0.0):
    return np.random.default_rng(seed).normal(size=(count, size)) + shift


@pytest.mark.usefixtures("x64")
def test_one_subset_of_everything_is_the_unbiased_estimator():
    x, y = _features(0, 9), _features(1, 9, shift=0.7)
    result = kernel_distance(x, y, num_subsets=1, subset_size=9)
    np.testing.assert_allclose(result.distance, _by_enumeration(x, y), rtol=1e-10)
    assert np.isnan(result.standard_error)


def test_float32_keeps_the_digits():
    """Features of the size of an Inception network's: a small MMD beside k = 1.5."""
    x = np.abs(_features(0, 60, size=64)) * 0.5
    y = np.abs(_features(1, 60, size=64)) * 0.5
    result = kernel_distance(x, y, num_subsets=1, subset_size=60)
    np.testing.assert_allclose(result.distance, _by_enumeration(x, y), atol=2e-6)


@pytest.mark.usefixtures("x64")
def test_subsets_are_averaged_without_bias():
    """The mean over many subsets is that of all points, within its error."""
    x, y = _features(0, 40), _features(1, 30, shift=0.3)
    result = kernel_distance(x, y, num_subsets=4000, subset_size=10)
    error = result.standard_deviation / np.sqrt(4000)
    assert abs(result.distance - _by_enumeration(x, y)) < 4 * error


def test_the_error_is_that_of_the_laws():
    """Fresh sets of 100 points scatter as much as the error of one says.

    Dividing by the root of the number of subsets alone says six times less.
    """
    results = [
        kernel_distance(
            _features(2 * seed, 100),
            _features(2 * seed + 1, 100, shift=0.5),
            num_subsets=100,
            subset_size=25,
        )
        for seed in range(40)
    ]
    spread = np.std([result.distance for result in results], ddof=1)
    promised = np.mean([result.standard_error for result in results])
    # The deviation of 40 values is known to 11 % (one sigma); the jackknife is biased.
    assert 0.6 < promised / spread < 1.6
    naive = np.mean([result.standard_deviation for result in results]) / 10
    assert naive < promised / 4


def test_equal_laws_are_not_told_apart_and_others_are():
    settings = {"num_subsets": 30, "subset_size": 100}
    same = kernel_distance(_features(0, 1000), _features(1, 1000), **settings)
    assert abs(same.distance) < 4 * same.standard_error
    other = kernel_distance(
        _features(0, 1000), _features(1, 1000, shift=0.5), **settings
    )
    assert other.distance > 4 * other.standard_error


def test_the_seed_fixes_the_subsets():
    x, y = _features(0, 50), _features(1, 50)
    first, second, other = (
        kernel_distance(x, y, num_subsets=3, subset_size=20, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_bad_arguments_are_refused():
    x = _features(0, 10)
    with pytest.raises(ValueError, match="subset_size must be at most .* got 1000"):
        kernel_distance(x, x)
    with pytest.raises(ValueError, match="subset_size must be at least 2, got 1"):
        kernel_distance(x, x, subset_size=1)
    with pytest.raises(ValueError, match="num_subsets must be at least 1, got 0"):
        kernel_distance(x, x, num_subsets=0)
    with pytest.raises(ValueError, match="one size, got 5 and 3"):
        kernel_distance(x, x[:, :3], subset_size=5)
    with pytest.raises(ValueError, match="x_features must be finite"):
        kernel_distance(x * np.inf, x, subset_size=5)
