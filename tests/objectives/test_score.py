"""Any loss with the gradient of a score: values, gradients, what is asked of a loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.objectives import (
    gaussian_kernel,
    generator_risk,
    mean_advantages,
    mmd2_unbiased,
    mmd_advantages,
    mmd_loss,
    rebar_surrogate,
    set_advantages,
    with_score,
)
from dspc_jax.sampling import rebar
from tests import cases

KERNEL = gaussian_kernel((0.7, 1.5))
MMD = functools.partial(mmd_loss, kernel=KERNEL)
DATA = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 2, 1)), jnp.float32)


@functools.cache
def coins():
    trees = pc.RandomBinaryTrees(2, 1, 2, seed=0)
    circuit = pc.build(pc.CircuitConfig(trees, pc.Bernoulli(), 1, 2, 2, 2))
    return circuit, cases.random_params(circuit, seed=3)


@functools.cache
def normals():
    trees = pc.RandomBinaryTrees(2, 1, 1, seed=0)
    circuit = pc.build(pc.CircuitConfig(trees, pc.UnitNormal(), 1, 2, 2))
    return circuit, cases.random_params(circuit, seed=4)


def mmd_of(x, y):
    return mmd_advantages(x, y, KERNEL)


def both(objective):
    """Loss and gradient of parameters, compiled; the batch is `DATA`."""

    def run(params):
        return objective(params, jax.random.key(5), DATA)

    return cases.jit(jax.value_and_grad(run, has_aux=True))


def close(found, expected, **tolerance):
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, **tolerance), found, expected
    )


@pytest.mark.parametrize(
    "name", cases.parameters(["in closed form", "by leaving out"], ["in closed form"])
)
def test_the_score_of_a_mean_of_losses(name):
    """Value, metrics and gradient of one set of samples, written out in NumPy."""
    circuit, params = coins()

    def losses(y):
        return jnp.sum(y * jnp.array([[2.0], [-1.0]])[None], (1, 2)) ** 2

    def loss(params, key, batch, *, sample):
        y = sample(jax.random.split(key, 7), params)
        return jnp.mean(losses(y)), {"count": jnp.float32(len(y))}

    def advantages(batch, y):
        return mean_advantages(losses(y))

    objective = with_score(
        loss,
        circuit,
        num_samples=7,
        advantages=advantages if name == "in closed form" else None,
    )
    (value, metrics), result = both(objective)(params)
    keys = jax.random.split(jax.random.key(5), 8)[:-1]
    y = cases.jit(jax.vmap(circuit.sample, (0, None)))(keys, params)
    r = np.asarray(losses(y), np.float64)
    a = np.array([r.mean() - np.delete(r, i).mean() for i in range(7)])
    score = cases.jit(jax.vmap(jax.grad(circuit.log_prob), (None, 0)))
    exact = jax.tree.map(
        lambda s: np.tensordot(a, np.asarray(s), axes=1), score(params, y)
    )
    np.testing.assert_allclose(value, r.mean(), rtol=1e-5)
    assert metrics == {"count": 7}
    close(result, exact, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_closed_form_and_leaving_out_agree_on_the_mmd():
    circuit, params = coins()
    (value, _), result = both(with_score(MMD, circuit, advantages=mmd_of))(params)
    (other, _), expected = both(with_score(MMD, circuit))(params)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-3
    close(result, expected, rtol=1e-3, atol=1e-5)


def test_units_are_those_of_the_loss():
    circuit, params = coins()
    halved = with_score(MMD, circuit, units=lambda y: y / 2)

    def loss(params, key, batch, *, sample):
        return MMD(params, key, batch, sample=lambda *asked: sample(*asked) / 2)

    result, expected = both(halved)(params), both(with_score(loss, circuit))(params)
    close(result, expected, rtol=1e-4, atol=1e-6)


def test_pathwise_leaves():
    """Weights have the gradient of the score, leaves that of the samples."""
    circuit, params = normals()
    score = functools.partial(with_score, MMD, circuit, advantages=mmd_of)

    def by_samples(params, key, batch):
        keys = jax.random.split(key, len(batch))
        y = jax.vmap(circuit.sample, (0, None))(keys, params)
        return mmd2_unbiased(batch, y, KERNEL), {}

    _, result = both(score(estimator="score_pathwise"))(params)
    _, scored = both(score(estimator="score_function"))(params)
    _, pathwise = both(by_samples)(params)
    close(result, scored._replace(leaves=pathwise.leaves), rtol=1e-4, atol=1e-6)
    assert np.abs(scored.leaves[0].mean - pathwise.leaves[0].mean).max() > 1e-3


@pytest.mark.slow
def test_rebar():
    """By the formula; leaves have the gradient of the samples, as in score_pathwise."""
    circuit, params = normals()

    def by_formula(params, key, batch):
        keys = jax.random.split(key, len(batch))
        s = rebar.draw(circuit.layout, keys, params, 0.7)
        losses = [mmd2_unbiased(batch, y, KERNEL) for y in s[:3]]
        exact, conditional = (
            set_advantages(lambda y: mmd2_unbiased(batch, y, KERNEL), y)
            for y in (s.exact, s.conditional)
        )
        surrogate = rebar_surrogate(s.log_choices, exact, conditional, *losses[1:])
        return losses[0] + surrogate, {}

    rebared = with_score(MMD, circuit, estimator="rebar", temperature=0.7)
    (value, _), result = both(rebared)(params)
    (expected_value, _), expected = both(by_formula)(params)
    np.testing.assert_allclose(value, expected_value, rtol=1e-4)
    close(result, expected, rtol=1e-3, atol=1e-5)
    _, pathwise = both(with_score(MMD, circuit, estimator="score_pathwise"))(params)
    close(result.leaves, pathwise.leaves, rtol=1e-4, atol=1e-6)
    weights = jax.tree.leaves(result._replace(leaves=()))
    others = jax.tree.leaves(pathwise._replace(leaves=()))
    assert max(np.abs(f - p).max() for f, p in zip(weights, others, strict=True)) > 1e-3


def test_the_key_of_the_loss_is_no_key_of_a_sample():
    """The same noise in every evaluation of a loss, and none of the samples'."""
    circuit, params = coins()

    def loss(params, key, batch, *, sample):
        sample_key, noise_key = jax.random.split(key)
        y = sample(jax.random.split(sample_key, len(batch)), params)
        noise = jax.random.normal(noise_key)
        return generator_risk(jnp.sum(y, (1, 2))) + noise, {"noise": noise}

    (value, metrics), gradient = both(with_score(loss, circuit))(params)

    def quiet(params, key, batch, *, sample):
        value, metrics = loss(params, key, batch, sample=sample)
        return value - metrics["noise"], metrics

    (without, _), expected = both(with_score(quiet, circuit))(params)
    np.testing.assert_allclose(value - metrics["noise"], without, rtol=1e-5)
    close(gradient, expected, rtol=1e-3, atol=1e-5)
    keys = jax.random.key_data(jax.random.split(jax.random.key(5), 7))
    assert len(np.unique(keys, axis=0)) == 7


def test_what_cannot_be_is_refused():
    circuit, params = coins()
    with pytest.raises(
        ValueError, match="estimator must be one of score_function, .*'x"
    ):
        with_score(MMD, circuit, estimator="x")
    nested = pc.CircuitConfig(cases.NESTED, pc.UnitNormal(), num_leaves=2, num_sums=2)
    with pytest.raises(ValueError, match="must be that of a tree"):
        with_score(MMD, pc.build(nested), estimator="rebar")
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        with_score(MMD, circuit)(params, jax.random.key(0), DATA[:1])
    asking_for_five = with_score(functools.partial(MMD, num_samples=5), circuit)
    with pytest.raises(ValueError, match="must ask for num_samples=6 samples, got 5"):
        asking_for_five(params, jax.random.key(0), DATA)
