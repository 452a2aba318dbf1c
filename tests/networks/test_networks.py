"""Auto-encoders of images and of vectors."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dspc_jax.networks import image_auto_encoder, mlp_auto_encoder
from dspc_jax.networks.layers import Normalizer
from dspc_jax.objectives import clip_encoder
from tests import cases


@pytest.mark.parametrize(
    ("height", "width", "num_channels"),
    [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (5, 11, 2), (1, 3, 1)],
)
def test_images_of_any_size(height, width, num_channels):
    auto_encoder = image_auto_encoder(height, width, num_channels, num_filters=4)
    x = jnp.zeros((3, height * width, num_channels))

    def run(key, x):
        params = auto_encoder.init(key)
        features = auto_encoder.encode(params, x)
        return features, auto_encoder.decode(params, features)

    features, decoded = jax.eval_shape(run, jax.random.key(0), x)
    assert features.shape == (3, 100)
    assert decoded.shape == x.shape


@pytest.mark.parametrize(("side", "num_stages"), [(8, 1), (28, 3), (32, 3), (64, 4)])
def test_the_pyramid_of_the_source(side, num_stages):
    """Filters 64, 128, ...; the last map is 4x4 at sides 8, 32, 64, and at 28."""
    auto_encoder = image_auto_encoder(side, side, 3)
    params = jax.eval_shape(auto_encoder.init, jax.random.key(0))["encoder"]["params"]
    shapes = [params[f"Conv_{i}"]["kernel"].shape for i in range(num_stages)]
    filters = [3, *(64 * 2**i for i in range(num_stages))]
    assert shapes == [(4, 4, *pair) for pair in zip(filters, filters[1:], strict=False)]
    assert params["Dense_0"]["kernel"].shape == (16 * filters[-1], 100)
    assert f"Conv_{num_stages}" not in params


@pytest.mark.parametrize(
    "normalizer",
    ["batch", *(pytest.param(n, marks=pytest.mark.slow) for n in ("group", "none"))],
)
def test_an_auto_encoder_learns_to_reconstruct(normalizer):
    """Bright and dark halves; the mean squared error of the mean image is about 0.6."""
    auto_encoder = image_auto_encoder(
        6, 6, num_filters=8, num_features=4, normalizer=normalizer
    )
    levels = np.random.default_rng(1).random((32, 2), np.float32) * 255
    x = jnp.asarray(np.repeat(levels, 18, axis=1)[:, :, None])
    optimizer = optax.rmsprop(3e-3)

    def loss(params):
        decoded = auto_encoder.decode(params, auto_encoder.encode(params, x))
        return jnp.mean((decoded - auto_encoder.scale(x)) ** 2)

    def step(carry, _):
        value, grads = jax.value_and_grad(loss)(carry[0])
        updates, opt_state = optimizer.update(grads, carry[1])
        return (jax.tree.map(jnp.add, carry[0], updates), opt_state), value

    @cases.jit
    def train(key):
        params = auto_encoder.init(key)
        return jax.lax.scan(step, (params, optimizer.init(params)), length=150)[1]

    losses = train(jax.random.key(0))
    assert losses[-1] < 0.05
    assert losses[0] > 0.2


def test_batch_normalization_sees_the_batch_and_group_normalization_one_example():
    x = np.random.default_rng(1).random((6, 144, 1), np.float32) * 255
    normalizers: dict[Normalizer, bool] = {"batch": False, "group": True, "none": True}
    for normalizer, alone in normalizers.items():
        auto_encoder = image_auto_encoder(12, 12, num_filters=8, normalizer=normalizer)

        @cases.jit
        def both(key, x, network=auto_encoder):
            params = network.init(key)
            return network.encode(params, x), network.encode(params, x[:3])

        together, separate = map(np.asarray, both(jax.random.key(0), x))
        scale = np.abs(together).max()
        same = np.allclose(together[:3], separate, atol=1e-4 * scale)
        assert bool(same) == alone


def test_batch_normalization_is_that_of_its_formula():
    """Through an MLP whose second layer is normalized, by hand in NumPy."""
    auto_encoder = mlp_auto_encoder(3, num_features=2, hidden_sizes=[5, 4])
    params = cases.jit(auto_encoder.init)(jax.random.key(0))
    x = cases.normal(1, 7, 3, 1)
    weights = jax.tree.map(np.asarray, params["encoder"]["params"])

    def dense(i, h):
        return h @ weights[f"Dense_{i}"]["kernel"] + weights[f"Dense_{i}"]["bias"]

    def leaky(h):
        return np.where(h > 0, h, 0.2 * h)

    h = dense(1, leaky(dense(0, np.asarray(x)[:, :, 0])))
    h = leaky((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5))
    np.testing.assert_allclose(
        cases.jit(auto_encoder.encode)(params, x), dense(2, h), rtol=1e-4, atol=1e-5
    )


def test_clipped_encoders_still_tell_examples_apart():
    auto_encoder = image_auto_encoder(16, 16, num_filters=16)

    @cases.jit
    def features(key, x):
        return auto_encoder.encode(clip_encoder(auto_encoder.init(key)), x)

    x = np.random.default_rng(1).random((8, 256, 1), np.float32) * 255
    assert np.all(np.std(features(jax.random.key(0), x), 0) > 1e-5)


def test_seeds_are_vmapped():
    auto_encoder = image_auto_encoder(8, 8, num_filters=4)
    x = np.random.default_rng(1).random((5, 64, 1), np.float32) * 255

    @cases.jit
    def both(keys, x):
        params = jax.vmap(auto_encoder.init)(keys)
        together = jax.vmap(auto_encoder.encode, (0, None))(params, x)
        one = auto_encoder.encode(jax.tree.map(lambda p: p[1], params), x)
        return together[1], one

    together, one = both(jax.random.split(jax.random.key(0), 3), x)
    np.testing.assert_allclose(together, one, rtol=1e-4, atol=1e-5)


def test_mlp_with_and_without_a_range_of_values():
    x = jnp.asarray(10 * cases.normal(1, 6, 3, 2))
    free = mlp_auto_encoder(3, 2, num_features=5)
    np.testing.assert_array_equal(free.scale(x), x)
    params = jax.eval_shape(free.init, jax.random.key(0))
    assert jax.eval_shape(free.encode, params, x).shape == (6, 5)
    features = jnp.zeros((6, 5))
    assert jax.eval_shape(free.decode, params, features).shape == (6, 3, 2)
    bounded = mlp_auto_encoder(3, 2, value_range=(-2, 6))

    @cases.jit
    def scaled(key):
        far = bounded.decode(bounded.init(key), jnp.ones((2, 16)) * 1e3)
        return bounded.scale(jnp.asarray([-2.0, 2.0, 6.0])), far

    ends, far = scaled(jax.random.key(0))
    np.testing.assert_allclose(ends, [-1, 0, 1])
    assert np.all(np.abs(far) <= 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"num_features": 0}, "num_features must be at least 1, got 0"),
        ({"value_range": (1.0, 1.0)}, "value_range must be finite and increase"),
        ({"normalizer": "layer"}, "normalizer must be 'batch', 'group' or 'none'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        image_auto_encoder(**{"height": 8, "width": 8} | options)


def test_images_of_another_size_are_refused():
    auto_encoder = image_auto_encoder(8, 8)
    params = jax.eval_shape(auto_encoder.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"the shape \(64, 1\), got \(2, 60, 1\)"):
        auto_encoder.encode(params, jnp.zeros((2, 60, 1)))


def test_objectives_do_not_load_flax():
    """In a fresh interpreter: what a user of the losses alone pays for."""
    program = (
        "import sys, dspc_jax.objectives, dspc_jax.evaluation; "
        "sys.exit('flax' in sys.modules or 'dspc_jax.networks' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
