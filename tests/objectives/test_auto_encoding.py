"""Encoding, decoding and the loss, on a circuit over four pixels and two latents."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import dspc_jax as pc
from dspc_jax.objectives import (
    auto_encoding_loss,
    bernoulli_cross_entropy,
    circuit_decoder,
    circuit_encoder,
    squared_error,
)
from dspc_jax.structure.latents import with_latents
from tests import cases

V, L, B = 4, 2, 6
LATENT = pc.UnitNormal(0.05, 2.0, (0.0, 1.0))
IMAGE = pc.UnitNormal()


@functools.cache
def built():
    """Circuit and parameters; the image's leaves broad, so that nothing is certain."""
    graph = with_latents(pc.RandomBinaryTrees(V, 1), L)
    config = pc.CircuitConfig(
        graph, (IMAGE,) * V + (LATENT,) * L, num_leaves=3, num_sums=3
    )
    circuit = pc.build(config)
    return circuit, cases.random_params(circuit, seed=4)


def images(seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(B, V, 1)), jnp.float32)


def keys(count: int = B) -> jax.Array:
    return cases.fresh_keys(7, count)


@functools.cache
def encoder(method: Any):
    """Codes of images with masks, compiled."""
    circuit, _ = built()
    return cases.jit(jax.vmap(circuit_encoder(circuit, method), (None, 0, 0, 0)))


@functools.cache
def mean_decoder():
    """The mean image of one code, compiled."""
    circuit, _ = built()
    return cases.jit(circuit_decoder(circuit, "mean"))


def image_log_prob(circuit: pc.Circuit, params: Any, x: jax.Array) -> jax.Array:
    """``log p(x)`` of an image alone."""
    joint = jnp.concatenate([x, jnp.zeros((L, 1))])
    return circuit.log_prob(params, joint, jnp.arange(V + L) < V)


GRID = np.linspace(-12.0, 12.0, 2401)


@functools.cache
def joint_density():
    """``log p`` of values and mask, compiled: what quadrature is made of."""
    circuit, params = built()
    return cases.jit(jax.vmap(lambda x, o: circuit.log_prob(params, x, o)))


def mean_by_quadrature(x: np.ndarray, observed: np.ndarray, variable: int) -> float:
    """E[x_variable | observed] from the density on a grid, in float64."""
    points = np.repeat(x[None], len(GRID), axis=0)
    points[:, variable, 0] = GRID
    mask = observed.copy()
    mask[variable] = True
    log_p = joint_density()(
        jnp.asarray(points, jnp.float32), jnp.broadcast_to(mask, (len(GRID), len(mask)))
    )
    p = np.exp(np.asarray(log_p, np.float64))
    return float((p * GRID).sum() / p.sum())


@pytest.mark.parametrize("hidden", [(), (1, 2)])
def test_the_encoded_mean_is_the_conditional_mean(hidden):
    _, params = built()
    x = images()
    visible = np.array([v not in hidden for v in range(V)])
    codes = encoder("mean")(params, keys(), x, jnp.tile(visible, (B, 1)))
    assert codes.shape == (B, L, 1)
    for image, code in zip(x[:2], codes[:2], strict=True):
        joint = np.concatenate([np.asarray(image), np.zeros((L, 1))])
        observed = np.concatenate([visible, np.zeros(L, bool)])
        expected = [mean_by_quadrature(joint, observed, V + i) for i in range(L)]
        np.testing.assert_allclose(code[:, 0], expected, atol=2e-4)


def test_the_decoded_mean_is_the_conditional_mean():
    _, params = built()
    z = jnp.asarray(np.random.default_rng(1).normal(size=(L, 1)), jnp.float32)
    decoded = mean_decoder()(params, jax.random.key(0), z)
    joint = np.concatenate([np.zeros((V, 1)), np.asarray(z)])
    observed = np.arange(V + L) >= V
    expected = [mean_by_quadrature(joint, observed, v) for v in range(V)]
    np.testing.assert_allclose(decoded[:, 0], expected, atol=2e-4)


def test_samples_have_the_conditional_mean():
    """4000 draws of code and image; 5 deviations of the mean."""
    circuit, params = built()
    x, num = images()[0], 4000
    encode = circuit_encoder(circuit, "sample")
    codes = cases.jit(jax.vmap(encode, (None, 0, None)))(params, keys(num), x)
    everything = jnp.ones((B, V), bool)
    exact = encoder("mean")(params, keys(), images(), everything)[0]
    spread = codes.std(axis=0) / np.sqrt(num)
    assert (jnp.abs(codes.mean(axis=0) - exact) < 5 * spread).all()
    z = codes[0]
    exact = mean_decoder()(params, jax.random.key(0), z)
    for method in ("sample", "leaf_mean"):
        decode = circuit_decoder(circuit, method)
        decode = cases.jit(jax.vmap(decode, (None, 0, None)))
        decoded = decode(params, keys(num), z)
        spread = decoded.std(axis=0) / np.sqrt(num) + 1e-6
        assert (jnp.abs(decoded.mean(axis=0) - exact) < 5 * spread).all()


def test_mpe_has_its_value_and_the_gradient_of_the_mean():
    circuit, params = built()
    x = images()[0]

    def code(method, params):
        return circuit_encoder(circuit, method)(params, jax.random.key(0), x, None)

    @cases.jit
    def everything(params):
        padded = jnp.concatenate([x, jnp.zeros((L, 1))])
        return circuit.mpe(params, padded, jnp.arange(V + L) < V)[V:], {
            method: jax.value_and_grad(
                lambda p, m=method: (jnp.sum(code(m, p)), code(m, p)), has_aux=True
            )(params)
            for method in ("mpe", "mean")
        }

    best, subject = everything(params)
    (_, by_mpe), mpe_grad = subject["mpe"]
    (_, by_mean), mean_grad = subject["mean"]
    np.testing.assert_allclose(by_mpe, best, atol=1e-6)
    assert np.abs(by_mean - best).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, mpe_grad, mean_grad)


@pytest.mark.parametrize(
    "method", ["mean", "mpe", pytest.param("sample", marks=pytest.mark.slow)]
)
def test_missing_pixels_do_not_matter_and_none_missing_changes_nothing(method):
    circuit, params = built()
    encode, x = encoder(method), images()
    everything = jnp.ones((B, V), bool)
    with_mask = encode(params, keys(), x, everything)
    without = cases.jit(jax.vmap(circuit_encoder(circuit, method), (None, 0, 0)))(
        params, keys(), x
    )
    np.testing.assert_allclose(with_mask, without, rtol=1e-5, atol=1e-6)
    visible = everything.at[:, 1].set(False)
    some = encode(params, keys(), x, visible)
    other = encode(params, keys(), x.at[:, 1].set(1e6), visible)
    np.testing.assert_array_equal(some, other)
    if method == "mean":  # a choice may stay what it was
        assert np.abs(np.asarray(some) - np.asarray(without)).max() > 1e-4


def test_the_likelihood_of_the_image_integrates_the_latents():
    circuit, params = built()
    x = images()[0]
    mask = np.ones(V + L, bool)
    mask[-1] = False  # the last latent by the circuit, the first by quadrature
    points = np.repeat(np.concatenate([x, np.zeros((L, 1))])[None], len(GRID), axis=0)
    points[:, V, 0] = GRID
    log_p = joint_density()(
        jnp.asarray(points, jnp.float32), jnp.broadcast_to(mask, (len(GRID), V + L))
    )
    total = np.exp(np.asarray(log_p, np.float64)).sum() * (GRID[1] - GRID[0])
    result = cases.jit(lambda params: image_log_prob(circuit, params, x))(params)
    np.testing.assert_allclose(result, np.log(total), atol=1e-4)


def test_errors_against_scipy():
    rng = np.random.default_rng(0)
    target = rng.uniform(size=(3, 5, 2)).round(1)
    mean = rng.uniform(-0.1, 1.1, size=(3, 5, 2))
    low = np.clip(mean, 0.01, 0.99)
    expected = -(special.xlogy(target, low) + special.xlog1py(1 - target, -low))
    got = bernoulli_cross_entropy(jnp.float32(target), jnp.float32(mean), epsilon=0.01)
    np.testing.assert_allclose(got, expected.sum(axis=(1, 2)), rtol=1e-5)
    got = squared_error(jnp.float32(target), jnp.float32(mean))
    np.testing.assert_allclose(got, ((target - mean) ** 2).sum((1, 2)), rtol=1e-5)


def test_only_gradients_that_lead_back_pass_the_clip():
    target = jnp.array([[0.0, 1.0, 0.0, 1.0, 0.3]])
    mean = jnp.array([[-0.2, -0.2, 1.2, 1.2, 0.6]])
    slopes = jax.grad(lambda m: bernoulli_cross_entropy(target, m).sum())
    grad = cases.jit(slopes)(mean)[0]
    assert grad[0] == 0  # black and below black: cannot be better
    assert grad[1] < 0  # white, and below black: up
    assert grad[2] > 0
    assert grad[3] == 0
    np.testing.assert_allclose(grad[4], (0.6 - 0.3) / (0.6 * 0.4), rtol=1e-5)


def loss_of(encode="mean", decode="mean", observed=None, **how):
    circuit, params = built()
    how.setdefault("log_prob", circuit.log_prob)
    how.setdefault("draw", circuit_encoder(circuit, "sample"))
    return auto_encoding_loss(
        params,
        jax.random.key(3),
        images(),
        encode=circuit_encoder(circuit, cast(Any, encode)),
        decode=circuit_decoder(circuit, cast(Any, decode)),
        observed=observed,
        **how,
    )


def test_the_terms_of_the_loss():
    circuit, params = built()

    @cases.jit
    def losses():
        weighted = loss_of(joint_weight=0.3, ll_weight=0.2, kl_weight=0.1)
        return loss_of(), loss_of(reconstruction="mse"), weighted

    (plain, metrics), (by_squares, _), (total, all_metrics) = losses()
    assert set(metrics) == {"reconstruction"}
    x = images()

    @cases.jit
    def by_hand(params, x):
        """One image: its code, what this decodes to, joint and own likelihood."""
        nothing = jax.random.key(0)
        key = jax.random.clone(nothing)
        code = circuit_encoder(circuit, "mean")(params, key, x, None)
        decoded = circuit_decoder(circuit, "mean")(params, nothing, code)
        joint = circuit.log_prob(params, jnp.concatenate([x, code]))
        return decoded, joint, image_log_prob(circuit, params, x)

    each = zip(*(by_hand(params, image) for image in x), strict=True)
    decoded, joint, alone = map(np.stack, each)
    low = np.clip(decoded, 1e-3, 1 - 1e-3).astype(np.float64)
    expected = -(special.xlogy(x, low) + special.xlog1py(1 - np.asarray(x), -low))
    np.testing.assert_allclose(plain, expected.sum(axis=(1, 2)).mean(), rtol=1e-4)
    errors = ((np.asarray(x) - decoded) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(by_squares, errors.mean(), rtol=1e-4)

    metrics = all_metrics
    joint, alone = joint.mean(), alone.mean()
    np.testing.assert_allclose(metrics["joint_ll"], joint, rtol=1e-4)
    np.testing.assert_allclose(metrics["ll"], alone, rtol=1e-4)
    np.testing.assert_allclose(
        total, plain - 0.3 * joint - 0.2 * alone + 0.1 * metrics["kl"], rtol=1e-4
    )


def test_the_divergence_against_quadrature():
    """KL(p(z | x) || N(0, I)) on a grid, one latent; 4000 estimates, 5 deviations."""
    config = pc.CircuitConfig(
        with_latents(pc.RandomBinaryTrees(2, 0), 1), (IMAGE,) * 2 + (LATENT,)
    )
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=2)
    x = jnp.array([[0.3], [0.8]])
    points = jnp.concatenate(
        [jnp.broadcast_to(x, (len(GRID), 2, 1)), jnp.float32(GRID)[:, None, None]], 1
    )
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    log_p = np.asarray(log_prob(params, points), np.float64)
    log_p -= special.logsumexp(log_p) + np.log(GRID[1] - GRID[0])
    step = GRID[1] - GRID[0]
    exact = (np.exp(log_p) * (log_p - stats.norm.logpdf(GRID))).sum() * step

    @cases.jit
    @jax.vmap
    def estimate(key):
        _, metrics = auto_encoding_loss(
            params,
            key,
            x[None],
            encode=circuit_encoder(circuit, "mean"),
            decode=circuit_decoder(circuit, "mean"),
            kl_weight=1.0,
            log_prob=circuit.log_prob,
            draw=circuit_encoder(circuit, "sample"),
        )
        return metrics["kl"]

    result = np.asarray(estimate(keys(4000)))
    assert abs(result.mean() - exact) < 5 * result.std() / np.sqrt(len(result))
    assert exact > 0.05


@pytest.mark.parametrize(
    ("encode", "decode"),
    [
        pytest.param("mean", "mean", marks=pytest.mark.slow),
        pytest.param("mpe", "leaf_mean", marks=pytest.mark.slow),
        ("sample", "sample"),
    ],
)
def test_gradients_reach_all_parameters(encode, decode):
    circuit, params = built()

    def loss(params):
        return auto_encoding_loss(
            params,
            jax.random.key(3),
            images(),
            encode=circuit_encoder(circuit, encode, relaxation="gumbel_softmax"),
            decode=circuit_decoder(circuit, decode, relaxation="gumbel_softmax"),
            reconstruction="mse",  # nothing is clipped
        )[0]

    grads = cases.jit(jax.grad(loss))(params)
    for block, leaf in zip(circuit.layout.blocks, grads.leaves, strict=True):
        for grad in leaf:  # [G, K, L, C]: each unit of each region with such variables
            reached = np.asarray(np.abs(grad).max(axis=(2, 3)) > 0)
            valid = np.any(block.valid, axis=1, keepdims=True)
            inside = np.broadcast_to(valid, reached.shape)
            np.testing.assert_array_equal(reached, inside)
    for grad in jax.tree.leaves(grads.sums):
        assert (np.abs(grad).max(axis=tuple(range(2, grad.ndim))) > 0).all()
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_a_neural_decoder_has_the_same_interface():
    circuit, params = built()

    @cases.jit
    def loss(params):
        return auto_encoding_loss(
            params,
            jax.random.key(0),
            images(),
            encode=lambda p, *rest: circuit_encoder(circuit, "mean")(
                p["circuit"], *rest
            ),
            decode=lambda p, key, z: jax.nn.sigmoid(p["weights"] @ z),
        )[0]

    assert np.isfinite(loss({"circuit": params, "weights": jnp.full((V, L), 0.1)}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"reconstruction": "l1"}, "reconstruction must be one of"),
        ({"kl_weight": 1.0, "draw": None}, "draw must be given"),
        ({"joint_weight": 1.0, "log_prob": None}, "log_prob must be given"),
        ({"target": jnp.zeros((B, V, 2))}, "target must have the shape"),
        ({"encode": "mode"}, "method must be one of"),
        ({"decode": "mpe"}, "method must be one of"),
    ],
)
def test_what_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        loss_of(**how)


def test_an_image_that_leaves_no_latents():
    circuit, params = built()
    encode = circuit_encoder(circuit, "mean")
    with pytest.raises(ValueError, match="x must leave some of the circuit's 6"):
        encode(params, jax.random.key(0), jnp.zeros((6, 1)), None)
