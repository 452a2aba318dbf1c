"""Distances, kernels and bandwidths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.objectives import (
    gaussian_kernel,
    median_bandwidths,
    rational_quadratic_kernel,
    squared_distances,
)
from tests import cases

KERNELS = {
    "gaussian": gaussian_kernel((0.5, 1.0, 4.0)),
    "rational_quadratic": rational_quadratic_kernel(bandwidth=1.5),
}


def _differences(x, y):
    """Squared distances in float64, by differences: no cancellation."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return ((x[:, None] - y[None, :]) ** 2).sum(-1)


distances_of = cases.jit(squared_distances)


def test_squared_distances_of_bright_images_do_not_cancel():
    """Images around gray level 250: without centering the error is 50 times larger."""
    rng = np.random.default_rng(0)
    x = (250 + rng.normal(size=(20, 784, 1))).astype(np.float32)
    y = (250 + rng.normal(size=(30, 784, 1))).astype(np.float32)
    exact = _differences(x, y)
    error = np.abs(distances_of(x, y) - exact) / exact
    assert error.max() < 2e-6  # a few roundings of float32
    plain = (
        (x**2).sum((1, 2))[:, None] + (y**2).sum((1, 2)) - 2 * x[..., 0] @ y[..., 0].T
    )
    assert (np.abs(plain - exact) / exact).max() > 1e-4


def test_squared_distances_within_a_set():
    x = cases.normal(0, 6, 3, 2) + 7
    distances = distances_of(x)
    np.testing.assert_array_equal(np.diag(distances), 0)
    np.testing.assert_allclose(distances, _differences(x, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(distances, distances_of(x, x), atol=1e-5)


def test_squared_distances_have_the_gradient_of_the_differences():
    x, y, weights = cases.normal(0, 5, 4), cases.normal(1, 7, 4), cases.normal(2, 5, 7)
    total = jax.grad(lambda x: jnp.sum(weights * squared_distances(x, y)))
    gradient = cases.jit(total)(x)
    expected = 2 * np.sum(weights[:, :, None] * (x[:, None] - y[None, :]), 1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_integer_images_are_points():
    x = np.array([[[0]], [[255]]], np.uint8)
    np.testing.assert_array_equal(distances_of(x), [[0, 65025], [65025, 0]])


def test_points_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="got 3 and 4 values per point"):
        squared_distances(jnp.zeros((2, 3)), jnp.zeros((2, 4)))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_positive_definite(name):
    x = cases.normal(3, 40, 5)
    distances = distances_of(x)
    matrix = cases.jit(KERNELS[name].value)(distances)
    matrix = np.asarray(matrix, np.float64)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    assert np.linalg.eigvalsh(matrix).min() > -1e-4
    # The negative control: the distances themselves are not positive definite.
    assert np.linalg.eigvalsh(distances).min() < -1


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_against_their_formulas(name):
    d2 = np.array([0.0, 1e-3, 0.5, 2.0, 30.0, 1e4])
    if name == "gaussian":
        expected = sum(np.exp(-d2 / (2 * s**2)) for s in (0.5, 1.0, 4.0))
    else:
        scale = 2 * 1.5**2
        expected = sum((1 + d2 / (scale * a)) ** -a for a in (0.2, 0.5, 1.0, 2.0, 5.0))
    value = cases.jit(KERNELS[name].value)(np.float32(d2))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", KERNELS)
def test_the_excess_keeps_its_digits_where_the_kernel_has_lost_them(name):
    d2 = np.asarray([0.0, 1e-9, 2e-9, 0.3, 7.0, 900.0], np.float32)
    kernel = KERNELS[name]

    @cases.jit
    @jax.vmap
    def both(d2):
        return jax.grad(kernel.value)(d2), kernel.value(d2), kernel.excess(d2)

    slopes, values, excesses = both(d2)
    np.testing.assert_allclose(excesses[:3], slopes[0] * d2[:3], rtol=1e-5)
    assert np.all(values[:3] == values[0])
    np.testing.assert_allclose(excesses[3:], values[3:] - values[0], rtol=1e-5)


def test_bandwidths_may_be_traced():
    d2 = np.asarray([[0.0, 3.0], [2.0, 0.5]], np.float32)
    traced = cases.jit(lambda b: gaussian_kernel(b).value(d2))(
        np.asarray([1, 2], np.float32)
    )
    np.testing.assert_allclose(traced, np.exp(-d2 / 2) + np.exp(-d2 / 8), rtol=1e-6)


@pytest.mark.parametrize("bad", [(), (0.0,), (1.0, -2.0), (float("nan"),)])
def test_bad_bandwidths_are_refused(bad):
    with pytest.raises(ValueError, match="bandwidths must"):
        gaussian_kernel(bad)


medians = cases.jit(median_bandwidths, static_argnums=1, static_argnames="max_points")


def test_bandwidths_scale_with_the_data():
    data = cases.normal(0, 50, 6, 1)
    one = medians(data, (0.5, 1.0, 2.0))
    np.testing.assert_allclose(medians(255 * data + 3, (1.0,)), 255 * one[1:2])
    np.testing.assert_allclose(one, one[1] * np.array([0.5, 1.0, 2.0]), rtol=1e-6)
    distances = np.sqrt(_differences(data, data)[np.triu_indices(50, 1)])
    np.testing.assert_allclose(one[1], np.median(distances), rtol=1e-5)


def test_the_median_of_a_subset_is_near_the_median_of_all():
    data = cases.normal(1, 600, 20)
    subset = medians(data, (1.0,), max_points=150)
    np.testing.assert_allclose(subset, medians(data, (1.0,), max_points=600), rtol=0.1)


def test_bandwidths_of_copies():
    """Median 0: the mean positive distance; no distance at all: 1."""
    copies = np.full((10, 3), 0.1, np.float32)
    np.testing.assert_array_equal(medians(copies, (2.0,)), [2.0])
    outlier = copies.copy()
    outlier[0] += np.asarray([3.0, 4.0, 0.0], np.float32)
    np.testing.assert_allclose(medians(outlier, (1.0,)), [5.0], rtol=1e-5)


def test_bandwidths_of_one_point_are_refused():
    with pytest.raises(ValueError, match="at least two points, got 1"):
        median_bandwidths(jnp.zeros((1, 3)))


def test_weights_of_gaussian_kernels():
    distances = np.linspace(0.0, 9.0, 7, dtype=np.float32)
    weighted = gaussian_kernel((0.5, 2.0), weights=(3.0, 0.25))
    value, excess = cases.jit(lambda d: (weighted.value(d), weighted.excess(d)))(
        distances
    )
    expected = 3 * np.exp(-distances / 0.5) + 0.25 * np.exp(-distances / 8)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(excess, expected - 3.25, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="weights must be as many as the 2 bandwidths"):
        gaussian_kernel((0.5, 2.0), weights=(1.0,))
