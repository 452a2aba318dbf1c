"""Discriminator and generator networks: layers, spectral norms, shapes, learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dspc_jax.networks import (
    convolutional_discriminator,
    convolutional_generator,
    mlp_discriminator,
    mlp_generator,
    spectral_norm,
    spectrally_normalized,
)
from dspc_jax.objectives import discriminator_risk
from tests import cases


def random_matrix(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 3), (1, 7), (288, 64)])
def test_the_spectral_norm_is_the_largest_singular_value(shape):
    matrix = random_matrix(shape)
    largest = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[0]
    norm = cases.jit(spectral_norm, static_argnames="num_iterations")
    estimate = float(norm(matrix))
    assert estimate <= largest * (1 + 1e-5)
    assert estimate >= 0.97 * largest
    exact = float(norm(matrix, num_iterations=400))
    np.testing.assert_allclose(exact, largest, rtol=1e-4)


def test_its_gradient_is_that_of_the_singular_value():
    """The outer product of the singular vectors, by NumPy; and of the quotient."""
    matrix = random_matrix((6, 4))
    u, s, vt = np.linalg.svd(matrix.astype(np.float64))
    outer = np.outer(u[:, 0], vt[0])
    norm = functools.partial(spectral_norm, num_iterations=200)
    slope = cases.jit(jax.grad(norm))(matrix)
    np.testing.assert_allclose(slope, outer, rtol=1e-3, atol=1e-4)
    weight = random_matrix((6, 4), 1)

    def quotient(matrix):
        normalized = spectrally_normalized({"kernel": matrix}, num_iterations=200)[
            "kernel"
        ]
        return jnp.sum(weight * normalized)

    expected = weight / s[0] - np.sum(weight * matrix) / s[0] ** 2 * outer
    slope = cases.jit(jax.grad(quotient))(matrix)
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-4)


def test_zeros_have_norm_0_and_finite_gradients():
    zeros = np.zeros((3, 4), np.float32)
    norm, slope = cases.jit(jax.value_and_grad(spectral_norm))(zeros)
    assert norm == 0
    assert np.all(np.isfinite(slope))
    grads = jax.grad(lambda m: jnp.sum(spectrally_normalized({"kernel": m})["kernel"]))
    assert np.all(np.isfinite(cases.jit(grads)(zeros)))


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match="two axes, got the shape \\(3,\\)"):
        spectral_norm(jnp.zeros(3))
    with pytest.raises(ValueError, match="num_iterations must be at least 1, got 0"):
        spectral_norm(jnp.zeros((3, 3)), num_iterations=0)


def test_every_kernel_of_the_network_has_norm_1_and_biases_stay():
    discriminator = convolutional_discriminator(8, 8, num_filters=8)
    params = cases.jit(discriminator.init)(jax.random.key(0))
    params = jax.tree.map(lambda p: np.asarray(p) + np.float32(0.3), params)
    layers = cases.jit(spectrally_normalized)(params)["params"]
    assert set(layers) == {"Conv_0", "Conv_1", "Dense_0"}
    for name, layer in layers.items():
        kernel = np.asarray(layer["kernel"], np.float64)
        matrix = kernel.reshape(-1, kernel.shape[-1])
        np.testing.assert_allclose(np.linalg.norm(matrix, 2), 1, rtol=1e-2)
        np.testing.assert_array_equal(layer["bias"], params["params"][name]["bias"])


def test_normalized_logits_do_not_depend_on_the_scale_of_kernels():
    discriminator = convolutional_discriminator(8, 8, num_filters=4)
    free = convolutional_discriminator(8, 8, num_filters=4, spectral=False)
    x = np.random.default_rng(1).random((5, 64, 1), np.float32)

    @cases.jit
    def logits(key, x):
        params = discriminator.init(key)
        doubled = jax.tree.map(lambda p: 2 * p, params)  # the biases are 0
        return [
            (judge.logits(params, x), judge.logits(doubled, x))
            for judge in (discriminator, free)
        ]

    normalized, plain = logits(jax.random.key(0), x)
    np.testing.assert_allclose(*normalized, rtol=1e-4)
    assert not np.allclose(*plain, rtol=0.1)


def test_the_paper_s_networks_have_the_source_s_number_of_parameters():
    """Discriminator 1.46 M and generator 1.51 M on 28x28 pixels, counted by hand."""
    shapes = jax.eval_shape(mlp_discriminator(784).init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    sizes = [784, 1024, 512, 256, 1]
    by_hand = [n * m + m for n, m in zip(sizes, sizes[1:], strict=False)]
    assert count == sum(by_hand) == 1_460_225
    sizes = [100, 128, 256, 512, 1024, 784]
    by_hand = [n * m + m for n, m in zip(sizes, sizes[1:], strict=False)]
    assert mlp_generator(784).num_params() == sum(by_hand) == 1_506_448


def test_the_mlp_is_that_of_its_formula_and_dropout_is_for_training():
    discriminator = mlp_discriminator(3, 2, hidden_sizes=(5, 4, 3))
    params = cases.jit(discriminator.init)(jax.random.key(0))
    x = np.random.default_rng(1).random((7, 3, 2), np.float32)
    weights = params["params"]
    h = 2 * x.reshape(7, 6) - 1
    for i, slope in enumerate((0.2, 0.3, 0.2, 1.0)):
        h = h @ weights[f"Dense_{i}"]["kernel"] + weights[f"Dense_{i}"]["bias"]
        h = np.where(h > 0, h, slope * h)
    calm = mlp_discriminator(3, 2, hidden_sizes=[5, 4, 3], dropout_rate=0.0)

    @cases.jit
    def logits(key):
        return (
            discriminator.logits(params, x),
            calm.train_logits(jax.random.clone(key), params, x),
            discriminator.train_logits(key, params, x),
        )

    *exact, noisy = logits(jax.random.key(2))
    for direction in exact:
        np.testing.assert_allclose(direction, h[:, 0], atol=1e-5)
    assert not np.allclose(noisy, h[:, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "num_channels"), [(8, 8, 1), (28, 28, 1), (5, 11, 3), (1, 3, 1)]
)
def test_images_of_any_size(height, width, num_channels):
    judge = convolutional_discriminator(height, width, num_channels, num_filters=4)
    maker = convolutional_generator(height, width, num_channels, num_filters=4)

    def run(key):
        keys = jax.random.split(key, 5)
        images = maker.sample(keys[:3], maker.init(keys[3]))
        return images, judge.logits(judge.init(keys[4]), images)

    images, logits = jax.eval_shape(run, jax.random.key(0))
    assert images.shape == (3, height * width, num_channels)
    assert logits.shape == (3,)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_one_sample_depends_on_its_own_key_and_lies_in_the_range(kind):
    maker = (
        mlp_generator(64, width=4)
        if kind == "mlp"
        else convolutional_generator(8, 8, num_filters=4)
    )

    @cases.jit
    def samples(init_key, keys):
        params = jax.tree.map(lambda p: 5 * p, maker.init(init_key))
        two = maker.sample(jax.random.clone(keys)[:2], params)
        return maker.sample(keys, params), two

    keys = jax.random.split(jax.random.key(1), 6)
    together, two = map(np.asarray, samples(jax.random.key(0), keys))
    np.testing.assert_allclose(together[:2], two, atol=1e-5)
    assert 0 <= together.min() < together.max() <= 1
    assert np.max(np.std(together, axis=0)) > 1e-3


@pytest.mark.optax
@pytest.mark.parametrize("kind", ["mlp", pytest.param("conv", marks=pytest.mark.slow)])
def test_discriminators_learn_to_tell_sets_apart(kind):
    """Bright left halves from bright right ones, seeds as one program."""
    judge = (
        mlp_discriminator(64, hidden_sizes=(16, 8))
        if kind == "mlp"
        else convolutional_discriminator(8, 8, num_filters=4)
    )
    side = np.tile(np.arange(8) < 4, 8)[:, None]
    noise = 0.2 * np.random.default_rng(1).random((2, 32, 64, 1))
    real = jnp.asarray(noise[0] + 0.6 * side, jnp.float32)
    fake = jnp.asarray(noise[1] + 0.6 * ~side, jnp.float32)
    optimizer = optax.adam(3e-3)

    def loss(params, key):
        real_key, fake_key = jax.random.split(key)
        return discriminator_risk(
            judge.train_logits(real_key, params, real),
            judge.train_logits(fake_key, params, fake),
        )

    def step(carry, key):
        value, grads = jax.value_and_grad(loss)(carry[0], key)
        updates, state = optimizer.update(grads, carry[1])
        return (jax.tree.map(jnp.add, carry[0], updates), state), value

    def start(key):
        params = judge.init(key)
        return params, optimizer.init(params)

    @cases.jit
    def train(init_keys, keys):
        carry = jax.vmap(start)(init_keys)
        (params, _), losses = jax.lax.scan(jax.vmap(step), carry, keys)
        logits = jax.vmap(judge.logits, (0, None))
        return losses, logits(params, real), logits(params, fake)

    losses, of_real, of_fake = train(
        jax.random.split(jax.random.key(0), 2),
        jax.random.split(jax.random.key(2), (60, 2)),
    )
    assert np.all(losses[-1] < 0.8 * losses[0])
    assert np.all(of_real > 0)
    assert np.all(of_fake < 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp_discriminator(0), "num_variables must be at least 1, got 0"),
        (lambda: mlp_discriminator(4, dropout_rate=1.0), "dropout_rate must be at"),
        (lambda: mlp_discriminator(4, hidden_sizes=[8, 0]), "hidden_sizes\\[1\\] must"),
        (
            lambda: mlp_discriminator(4, hidden_sizes=8),
            "hidden_sizes must be a sequence, got 8",
        ),
        (
            lambda: mlp_discriminator(4, value_range=(1.0, 1.0)),
            "value_range must increase",
        ),
        (
            lambda: convolutional_discriminator(8, 8, num_filters=0),
            "num_filters must be at least 1, got 0",
        ),
        (lambda: mlp_generator(4, width=0), "width must be at least 1, got 0"),
        (
            lambda: convolutional_generator(8, 8, num_latents=0),
            "num_latents must be at least 1, got 0",
        ),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_another_size_are_refused():
    judge = convolutional_discriminator(8, 8)
    with pytest.raises(ValueError, match=r"the shape \(64, 1\), got \(2, 60, 1\)"):
        judge.logits({}, jnp.zeros((2, 60, 1)))
