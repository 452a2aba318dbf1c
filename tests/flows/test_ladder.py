"""Flows: inverses, log-determinants and blocks against Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.flows.coupling import ActNorm, squeeze, unsqueeze
from dspc_jax.flows.ladder import (
    after_logit,
    color_flow,
    identity_flow,
    multi_scale_flow,
    patch_flow,
)
from tests import cases

FLOWS = {
    "identity": (identity_flow(2, 3, 2), 2),
    "colour": (color_flow(2, 3, 3), 3),
    "pixel": (patch_flow(1, 3, 3, patch=1, num_steps=2, num_filters=4), 3),
    "patch": (patch_flow(4, 2, 2, patch=2, num_steps=2, num_filters=4), 2),
    "odd-patch": (patch_flow(3, 6, 1, patch=3, num_steps=2, num_filters=4), 1),
    "multi-scale": (
        multi_scale_flow(4, 8, 1, num_levels=2, num_steps=2, num_filters=4),
        1,
    ),
    "logit-patch": (
        after_logit(
            patch_flow(2, 4, 2, patch=2, num_steps=2, num_filters=4), alpha=0.1
        ),
        2,
    ),
}


def random_params(flow, num_channels, seed=1, scale=0.3):
    """Normal numbers for all parameters: no layer is at its start."""
    x = jax.ShapeDtypeStruct((2, len(flow.blocks), num_channels), jnp.float32)
    shapes = jax.eval_shape(flow.init, jax.random.key(0), x)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
    return cases.randomize(zeros, seed, scale)


def uniform(flow, num_channels, num_examples=3, seed=2):
    shape = (num_examples, len(flow.blocks), num_channels)
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0.01, 0.99, shape), jnp.float32)


def everything(flow):
    """One program: features, inverses both ways, and the Jacobian of each example."""

    @cases.jit
    def run(params, x, z):
        features, log_det = flow.forward(params, x)
        jacobian = jax.vmap(jax.jacfwd(lambda x: flow.forward(params, x[None])[0][0]))
        again = flow.inverse(params, features)
        there = flow.forward(params, flow.inverse(params, z))[0]
        return features, log_det, again, there, jacobian(x)

    return run


@pytest.mark.parametrize(
    "name",
    cases.parameters(FLOWS, ("pixel", "odd-patch", "multi-scale", "logit-patch")),
)
def test_inverse_log_determinant_and_blocks(name):
    flow, num_channels = FLOWS[name]
    params = random_params(flow, num_channels)
    x = uniform(flow, num_channels)
    z = jnp.asarray(np.random.default_rng(3).normal(size=x.shape), jnp.float32)
    features, log_det, again, there, jacobian = everything(flow)(params, x, z)
    assert features.shape == x.shape
    assert log_det.shape == (len(x), flow.num_blocks)
    # A few dozen roundings, spread by a map whose condition is a few tens.
    np.testing.assert_allclose(again, x, atol=2e-5)
    np.testing.assert_allclose(there, z, atol=1e-4)

    jacobian = np.asarray(jacobian, np.float64)
    blocks = np.asarray(flow.blocks)
    same = blocks[:, None] == blocks[None]
    inside = jacobian.transpose(1, 3, 0, 2, 4)  # [V, V, B, C, C]
    assert np.all(inside[~same] == 0)
    # Inside of a block everything depends on everything.
    assert name == "identity" or np.mean(inside[same] != 0) > 0.9
    for block in range(flow.num_blocks):
        at = np.flatnonzero(blocks == block)
        part = jacobian[:, at][:, :, :, at].reshape(len(x), at.size * num_channels, -1)
        np.testing.assert_allclose(
            log_det[:, block], np.linalg.slogdet(part)[1], rtol=1e-5, atol=5e-5
        )


@pytest.mark.parametrize(
    ("flow", "num_blocks"),
    [
        (identity_flow(2, 3), 6),
        (color_flow(2, 3), 6),
        (patch_flow(4, 6, patch=2), 6),
        (multi_scale_flow(4, 6), 1),
        (after_logit(patch_flow(4, 6, patch=2)), 6),
    ],
)
def test_blocks_are_numbered_row_by_row(flow, num_blocks):
    assert flow.num_blocks == num_blocks
    if len(flow.blocks) == 24 and num_blocks == 6:
        top = [0, 0, 1, 1, 2, 2]
        bottom = [3, 3, 4, 4, 5, 5]
        assert list(flow.blocks) == 2 * top + 2 * bottom
    assert flow.affine == (flow.name in ("identity_flow", "color_flow"))


@pytest.mark.slow
def test_at_the_start_every_feature_is_its_standardised_value():
    """The Jacobian is diagonal: features stand at their pixels, on every level."""
    flow = multi_scale_flow(4, 4, 2, num_levels=2, num_steps=2, num_filters=4)
    x = np.float32(3 + 0.2 * np.asarray(uniform(flow, 2, num_examples=20)))
    params = cases.jit(flow.init)(jax.random.key(0), x)
    z, _ = cases.jit(flow.forward)(params, x)
    squares = z.reshape(20, 2, 2, 2, 2, 2)
    np.testing.assert_allclose(np.mean(squares, (0, 1, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(np.std(squares, (0, 1, 3)), 1, atol=1e-3)
    one = cases.jit(jax.jacfwd(lambda x: flow.forward(params, x[None])[0][0]))(x[0])
    jacobian = np.asarray(one).reshape(32, 32)
    assert np.all(jacobian[~np.eye(32, dtype=bool)] == 0)
    assert np.all(np.diag(jacobian) > 0)


def test_a_channel_that_never_varies_is_not_blown_up():
    layer = ActNorm()
    x = np.full((2, 1, 1, 1), 7.0, np.float32)
    (y, log_det), _ = cases.jit(layer.init_with_output)(jax.random.key(0), x)
    np.testing.assert_allclose(y, 0, atol=1e-6)
    np.testing.assert_allclose(log_det, np.log(1e3), rtol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_squeezing_keeps_neighbours_apart(factor):
    """The halves of a square are the black and the white fields of a chessboard."""
    shape = (1, 2 * factor, 3 * factor, 2)
    x = np.arange(np.prod(shape)).reshape(shape)

    @cases.jit
    def there_and_back(x):
        squeezed = squeeze(x, factor)
        return squeezed, unsqueeze(squeezed, factor)

    squeezed, again = there_and_back(x)
    assert squeezed.shape == (1, 2, 3, factor**2 * 2)
    np.testing.assert_array_equal(again, x)
    fields = np.indices(shape).sum(0) - np.arange(2)  # rows plus columns
    halves = there_and_back(fields)[0] % 2
    num_black = 2 * ((factor**2 + 1) // 2)
    if factor % 2 == 0:  # the squares begin with the same colour
        assert np.all(halves[..., :num_black] == 0)
        assert np.all(halves[..., num_black:] == 1)


def test_beyond_the_bounds_of_the_logit_there_is_no_density():
    flow = after_logit(identity_flow(1, 4), alpha=0.25)  # bounds -0.5 and 1.5
    x = np.asarray([[-0.5, 1.6, 0.0, 1.0]], np.float32)[..., None]

    def total(x):
        z, log_det = flow.forward({}, x)
        inside = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
        return jnp.sum(inside) + jnp.sum(z), log_det

    slopes, log_det = cases.jit(jax.grad(total, has_aux=True))(x)
    assert np.all(log_det[0, :2] == -np.inf)
    # u = 1/4 and 3/4: log(1/2) - log(3/16)
    np.testing.assert_allclose(log_det[0, 2:], np.log(8 / 3), rtol=1e-6)
    slopes = slopes[0, :, 0]
    assert np.all(slopes[:2] == 0)
    assert np.all(np.isfinite(slopes))
    far = np.full((1, 4, 1), 1e4, np.float32)
    extreme = cases.jit(flow.inverse)({}, far)
    np.testing.assert_allclose(extreme, 1.5, rtol=1e-6)


def test_gradients_are_finite_and_reach_every_parameter():
    flow, num_channels = FLOWS["logit-patch"]
    params = random_params(flow, num_channels)
    # Outside of the bounds, too.
    x = np.round(uniform(flow, num_channels)) * np.float32(1.2)

    def loss(params, x):
        z, log_det = flow.forward(params, x)
        inside = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
        return jnp.sum(z**2) - jnp.sum(inside) + jnp.sum(flow.inverse(params, z + 1))

    for leaf in jax.tree.leaves(cases.jit(jax.grad(loss, (0, 1)))(params, x)):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)


def test_seeds_are_vmapped():
    flow, num_channels = FLOWS["patch"]
    both = [random_params(flow, num_channels, seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *both)
    x = uniform(flow, num_channels)
    together = cases.jit(jax.vmap(flow.forward, (0, None)))(stacked, x)
    alone = cases.jit(flow.forward)(both[1], x)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one[1], other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: identity_flow(0, 2), "height must be at least 1, got 0"),
        (lambda: color_flow(2, 2, 0), "num_channels must be at least 1, got 0"),
        (lambda: patch_flow(6, 8), "patch must divide .*, got 4 for 6x8"),
        (
            lambda: patch_flow(2, 2, patch=1),
            "patch must be at least 2 for one channel .* got 1",
        ),
        (lambda: multi_scale_flow(4, 6, num_levels=2), "multiples of .* 4, got 4x6"),
        (lambda: multi_scale_flow(3, 3), "multiples of .* 2, got 3x3"),
        (lambda: multi_scale_flow(4, 4, num_steps=0), "num_steps must be at least 1"),
        (
            lambda: after_logit(identity_flow(2, 2), alpha=0.5),
            "between 0 and 0.5, got 0.5",
        ),
        (
            lambda: identity_flow(2, 2).forward({}, jnp.zeros((3, 4, 2))),
            r"the shape \(4, 1\), got \(3, 4, 2\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("height", "width", "num_levels"), [(2, 2, 1), (12, 4, 2), (28, 28, 2), (32, 16, 3)]
)
def test_levels_are_as_many_as_the_sides_allow(height, width, num_levels):
    flow = multi_scale_flow(height, width, num_steps=5)
    x = jax.ShapeDtypeStruct((1, height * width, 1), jnp.float32)
    params = jax.eval_shape(flow.init, jax.random.key(0), x)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    matrices = [leaf for path, leaf in leaves if "lu" in jax.tree_util.keystr(path)]
    assert len(matrices) == 5 * num_levels
