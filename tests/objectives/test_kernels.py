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


def test_squared_distances_of_bright_images_do_not_cancel():
    """Images around gray level 250: without centering the error is 50 times larger."""
    rng = np.random.default_rng(0)
    x = (250 + rng.normal(size=(20, 784, 1))).astype(np.float32)
    y = (250 + rng.normal(size=(30, 784, 1))).astype(np.float32)
    exact = _differences(x, y)
    error = np.abs(squared_distances(x, y) - exact) / exact
    assert error.max() < 2e-6  # a few roundings of float32
    plain = (
        (x**2).sum((1, 2))[:, None] + (y**2).sum((1, 2)) - 2 * x[..., 0] @ y[..., 0].T
    )
    assert (np.abs(plain - exact) / exact).max() > 1e-4


def test_squared_distances_within_a_set():
    x = jax.random.normal(jax.random.key(0), (6, 3, 2)) + 7
    distances = squared_distances(x)
    np.testing.assert_array_equal(jnp.diag(distances), 0)
    np.testing.assert_allclose(distances, _differences(x, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(distances, squared_distances(x, x), atol=1e-5)


def test_squared_distances_have_the_gradient_of_the_differences():
    x = jax.random.normal(jax.random.key(0), (5, 4))
    y = jax.random.normal(jax.random.key(1), (7, 4))
    weights = jax.random.normal(jax.random.key(2), (5, 7))
    total = jax.grad(lambda x: jnp.sum(weights * squared_distances(x, y)))
    gradient = cases.jit(total)(x)
    expected = 2 * jnp.sum(weights[:, :, None] * (x[:, None] - y[None, :]), 1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_integer_images_are_points():
    x = np.array([[[0]], [[255]]], np.uint8)
    np.testing.assert_array_equal(squared_distances(x), [[0, 65025], [65025, 0]])


def test_points_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="got 3 and 4 values per point"):
        squared_distances(jnp.zeros((2, 3)), jnp.zeros((2, 4)))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_positive_definite(name):
    x = jax.random.normal(jax.random.key(3), (40, 5))
    matrix = np.asarray(KERNELS[name].value(squared_distances(x)), np.float64)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    assert np.linalg.eigvalsh(matrix).min() > -1e-4
    # The negative control: the distances themselves are not positive definite.
    assert np.linalg.eigvalsh(np.asarray(squared_distances(x))).min() < -1


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_against_their_formulas(name):
    d2 = np.array([0.0, 1e-3, 0.5, 2.0, 30.0, 1e4])
    if name == "gaussian":
        expected = sum(np.exp(-d2 / (2 * s**2)) for s in (0.5, 1.0, 4.0))
    else:
        scale = 2 * 1.5**2
        expected = sum((1 + d2 / (scale * a)) ** -a for a in (0.2, 0.5, 1.0, 2.0, 5.0))
    value = KERNELS[name].value(jnp.asarray(d2, jnp.float32))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", KERNELS)
def test_the_excess_keeps_its_digits_where_the_kernel_has_lost_them(name):
    d2 = jnp.asarray([0.0, 1e-9, 2e-9], jnp.float32)
    kernel = KERNELS[name]
    slope = jax.grad(lambda d: kernel.value(d))(jnp.zeros(()))
    np.testing.assert_allclose(kernel.excess(d2), slope * d2, rtol=1e-5)
    assert jnp.all(kernel.value(d2) == kernel.value(d2[0]))
    far = jnp.asarray([0.3, 7.0, 900.0], jnp.float32)
    expected = kernel.value(far) - kernel.value(d2[0])
    np.testing.assert_allclose(kernel.excess(far), expected, rtol=1e-5)


def test_bandwidths_may_be_traced():
    d2 = squared_distances(jax.random.normal(jax.random.key(0), (4, 3)))
    bandwidths = jnp.asarray([1.0, 2.0])
    traced = jax.jit(lambda b: gaussian_kernel(b).value(d2))(bandwidths)
    np.testing.assert_allclose(traced, gaussian_kernel(bandwidths).value(d2), rtol=1e-6)


@pytest.mark.parametrize("bad", [(), (0.0,), (1.0, -2.0), (float("nan"),)])
def test_bad_bandwidths_are_refused(bad):
    with pytest.raises(ValueError, match="bandwidths must"):
        gaussian_kernel(bad)


medians = cases.jit(median_bandwidths, static_argnums=1, static_argnames="max_points")


def test_bandwidths_scale_with_the_data():
    data = jax.random.normal(jax.random.key(0), (50, 6, 1))
    one = medians(data, (0.5, 1.0, 2.0))
    np.testing.assert_allclose(medians(255 * data + 3, (1.0,)), 255 * one[1:2])
    np.testing.assert_allclose(one, one[1] * np.array([0.5, 1.0, 2.0]), rtol=1e-6)
    distances = np.sqrt(_differences(data, data)[np.triu_indices(50, 1)])
    np.testing.assert_allclose(one[1], np.median(distances), rtol=1e-5)


def test_the_median_of_a_subset_is_near_the_median_of_all():
    data = jax.random.normal(jax.random.key(1), (600, 20))
    subset = medians(data, (1.0,), max_points=150)
    np.testing.assert_allclose(subset, medians(data, (1.0,), max_points=600), rtol=0.1)


def test_bandwidths_of_copies():
    """Median 0: the mean positive distance; no distance at all: 1."""
    copies = jnp.full((10, 3), 0.1)
    np.testing.assert_array_equal(medians(copies, (2.0,)), [2.0])
    outlier = copies.at[0].add(jnp.asarray([3.0, 4.0, 0.0]))
    np.testing.assert_allclose(medians(outlier, (1.0,)), [5.0], rtol=1e-5)


def test_bandwidths_of_one_point_are_refused():
    with pytest.raises(ValueError, match="at least two points, got 1"):
        median_bandwidths(jnp.zeros((1, 3)))


def test_weights_of_gaussian_kernels():
    distances = jnp.linspace(0.0, 9.0, 7)
    weighted = gaussian_kernel((0.5, 2.0), weights=(3.0, 0.25))
    expected = 3 * np.exp(-distances / 0.5) + 0.25 * np.exp(-distances / 8)
    np.testing.assert_allclose(weighted.value(distances), expected, rtol=1e-5)
    np.testing.assert_allclose(
        weighted.excess(distances), expected - 3.25, rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ValueError, match="weights must be as many as the 2 bandwidths"):
        gaussian_kernel((0.5, 2.0), weights=(1.0,))
