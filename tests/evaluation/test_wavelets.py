"""The integer Haar transform is a bijection; its range, and its codec."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.evaluation import (
    bits_per_example,
    haar,
    inverse_haar,
    num_wavelet_values,
    rgb_to_ycocg,
    wavelet_codec,
)

SIZES = [(1, 1), (2, 2), (4, 4), (8, 8), (1, 6), (5, 3), (7, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_images_come_back(size):
    rng = np.random.default_rng(0)
    image = rng.integers(-300, 300, (2, *size, 3))
    result = inverse_haar(haar(jnp.asarray(image)))
    np.testing.assert_array_equal(result, image)
    coefficients = jnp.asarray(image, jnp.float32)
    np.testing.assert_array_equal(haar(inverse_haar(coefficients)), coefficients)


def test_a_block_by_hand():
    """Differences lie at the later pixel, means at the earlier one."""
    image = jnp.array([[7, 2], [4, 4]])[..., None]
    # Rows: differences -3, 2, means 7 + (-3 // 2) = 5 and 2 + 1 = 3; then columns.
    expected = [[5 + (3 - 5) // 2, 3 - 5], [-3 + (2 + 3) // 2, 2 + 3]]
    np.testing.assert_array_equal(haar(image)[..., 0], expected)


def test_scales_lie_at_multiples_of_their_blocks():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (8, 8, 1)))
    whole = haar(image)
    finest = haar(image[:2, 2:4])  # a block is all that its finest differences know
    np.testing.assert_array_equal(whole[:2, 2:4][1], finest[1])
    np.testing.assert_array_equal(whole[0, 3], finest[0, 1])
    constant = haar(jnp.full((8, 8, 1), 9))
    assert constant[0, 0, 0] == 9
    assert jnp.sum(jnp.abs(constant)) == 9


@pytest.mark.parametrize("ycocg", [False, True])
def test_extreme_images_are_in_range(ycocg):
    """Checkerboards and stripes of all colors that are extreme: 12 bits of 2 x 2."""
    bits = np.array(list(itertools.product([0, 255], repeat=12)), np.uint8)
    codec = wavelet_codec(2, 2, ycocg=ycocg)
    x = codec.encode(jax.random.key(0), bits.reshape(-1, 4, 3))
    top = num_wavelet_values(ycocg=ycocg) - 1
    assert x.min() >= 0
    assert x.max() <= top
    if not ycocg:
        assert (x.min(), x.max()) == (0, top)
    np.testing.assert_array_equal(codec.to_levels(x), bits.reshape(-1, 4, 3))


@pytest.mark.parametrize("ycocg", [False, True])
def test_the_units_of_the_codec(ycocg):
    rng = np.random.default_rng(0)
    levels = jnp.asarray(rng.integers(0, 256, (3, 6, 3)), jnp.uint8)
    codec = wavelet_codec(2, 3, ycocg=ycocg)
    x = codec.encode(jax.random.key(0), levels)
    assert x.dtype == jnp.float32
    unit = codec.to_unit(x)
    np.testing.assert_allclose(unit, levels.astype(np.float32) / 255, atol=1e-6)
    np.testing.assert_array_equal(codec.from_unit(unit), x)
    image = levels.reshape(3, 2, 3, 3)
    image = image.astype(jnp.int32)
    expected = haar(rgb_to_ycocg(image) if ycocg else image)
    offset = (num_wavelet_values(ycocg=ycocg) - 1) // 2
    np.testing.assert_array_equal(x, expected.reshape(3, 6, 3) + offset)
    # The derivatives are those of a linear map and of its inverse.
    forward = jax.jacobian(codec.from_unit)(unit[0]).reshape(18, 18)
    backward = jax.jacobian(codec.to_unit)(x[0]).reshape(18, 18)
    np.testing.assert_allclose(forward @ backward, np.eye(18), atol=1e-3)


def test_bits_are_those_of_the_pixels():
    """The mass of all images, of three levels each, is that of their coefficients."""
    codec = wavelet_codec(2, 2, num_values=3)
    levels = np.array(list(itertools.product(range(3), repeat=4)), np.uint8)[..., None]
    x = codec.encode(jax.random.key(0), levels)
    assert len(np.unique(np.asarray(x), axis=0)) == len(levels)
    leaf = pc.Categorical(num_wavelet_values(3))
    circuit = pc.build(pc.CircuitConfig(pc.QuadTree(2, 2), leaf, num_sums=2))
    params = circuit.init(jax.random.key(1), x)
    log_p = jax.vmap(circuit.log_prob, (None, 0))(params, x)
    bits = bits_per_example(codec, x, log_p)
    np.testing.assert_allclose(bits, -log_p / 4 / np.log(2), rtol=1e-6)
    assert 0.1 < jnp.sum(2 ** (-4 * bits)) < 1


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"shape \[..., H, W, C\], got \(2, 3\)"):
        haar(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="num_values must be from 2 to 256, got 1"):
        wavelet_codec(2, 2, num_values=1)
