"""Lossless colors: a bijection, and a codec whose units are those of RGB."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.evaluation import (
    NUM_COLOR_VALUES,
    color_codec,
    rgb_to_ycocg,
    ycocg_to_rgb,
)

CODEC = color_codec()


def test_all_colors_come_back_and_are_apart():
    """All 2^24 colors, a value of red after another."""
    green, blue = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")

    @jax.jit
    def of_red(red):
        rgb = jnp.stack([jnp.full((256, 256), red), green, blue], -1).astype(jnp.int32)
        ycocg = rgb_to_ycocg(rgb)
        low, high = ycocg.min((0, 1)), ycocg.max((0, 1))
        return (ycocg_to_rgb(ycocg) == rgb).all(), low, high

    same, low, high = jax.lax.map(of_red, jnp.arange(256))
    assert same.all()  # an inverse: no two colors have one image
    assert low.min(0).tolist() == [0, -255, -255]
    assert high.max(0).tolist() == [255, 255, 255]


def test_known_colors():
    rgb = jnp.array([[255, 255, 255], [255, 0, 0], [0, 0, 255], [10, 20, 31]])
    wanted = [[255, 0, 0], [63, 255, -127], [63, -255, -127], [20, -21, 0]]
    np.testing.assert_array_equal(rgb_to_ycocg(rgb), wanted)


def test_the_codec_has_the_units_of_rgb():
    levels = np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8)
    x = jax.jit(lambda v: CODEC.encode(jax.random.key(0), v))(levels)
    assert x.dtype == jnp.float32
    assert (x >= 0).all()
    assert (x < NUM_COLOR_VALUES).all()
    np.testing.assert_array_equal(CODEC.to_levels(x), levels)
    np.testing.assert_array_equal(CODEC.to_levels(x + 0.4), levels)
    unit = levels.astype(np.float32) / 255
    np.testing.assert_allclose(CODEC.to_unit(x), unit, atol=1e-6)
    np.testing.assert_array_equal(CODEC.from_unit(unit), x)
    assert CODEC.mean_log_slope(x) == 0


def test_derivatives_are_those_of_the_linear_map():
    x = CODEC.encode(jax.random.key(0), np.array([[200, 31, 90]], np.uint8))
    slope = jax.jacobian(CODEC.to_unit)(x)[0, :, 0] * 255
    linear = [[1, 0.5, -0.5], [1, 0, 0.5], [1, -0.5, -0.5]]
    np.testing.assert_allclose(slope, linear, atol=1e-6)
    back = jax.jacobian(CODEC.from_unit)(CODEC.to_unit(x))[0, :, 0] / 255
    np.testing.assert_allclose(back @ slope, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (4,), (3, 2)])
def test_other_channels_are_refused(shape):
    with pytest.raises(ValueError, match="three channels on the last axis"):
        rgb_to_ycocg(jnp.zeros(shape))
