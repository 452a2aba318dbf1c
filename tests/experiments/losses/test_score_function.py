"""``--relaxation=score_function`` and ``implicit`` inside the programs' step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.objectives import (
    mmd2_unbiased,
    rebar_surrogate,
    score_function_loss,
    set_advantages,
)
from dspc_jax.sampling import rebar
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.losses import score_function
from experiments.losses.mmd import MmdSettings, pixel_term
from experiments.models import generators
from tests import cases
from tests.experiments.tiny import tiny_digits

SETTINGS = Settings(
    num_sums=2,
    num_leaves=2,
    leaf="binomial",
    structure="random_binary_trees",
    depth=1,
    num_repetitions=1,
)


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """A piece of the digits: 2x4 pixels."""
    return tiny_digits()


def test_gradients_of_a_term_are_those_of_the_library(tiny: Dataset):
    """In closed form, and with one sample left out after the other."""
    generator = generators.circuit_generator(SETTINGS, tiny)
    circuit = generator.circuit
    assert circuit is not None
    params = cases.jit(generator.init)(jax.random.key(0))
    x = jnp.asarray(tiny.train[:6], jnp.float32) / 16
    term = pixel_term(circuit.kernel, MmdSettings())
    assert term.advantages is not None

    def by_term(params, advantages):
        return score_function.term_loss(
            "score_function",
            circuit,
            term.loss,
            advantages,
            params,
            jax.random.key(1),
            x,
            (),
        )

    def by_library(params):
        def loss(samples):
            return term.loss(
                (), jax.random.key(1), x, (), lambda keys, _: samples / 16
            )[0]

        return score_function_loss(
            params,
            jax.random.key(1),
            x,
            sample=lambda keys, p: jax.vmap(circuit.circuit.sample, (0, None))(
                keys, p["circuit"]
            ),
            log_prob=lambda p, x: circuit.circuit.log_prob(p["circuit"], x),
            loss=loss,
        )

    both = jax.value_and_grad(by_library, has_aux=True)
    (value, _), expected = cases.jit(both)(params)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))
    for advantages in (None, term.advantages):

        def run(params, advantages=advantages):
            return by_term(params, advantages)

        both = jax.value_and_grad(run, has_aux=True)
        (loss, metrics), found = cases.jit(both)(params)
        np.testing.assert_allclose(loss, value, rtol=1e-5)
        np.testing.assert_allclose(metrics["mmd2"], value, rtol=1e-5)
        jax.tree.map(
            lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-5),
            found,
            expected,
        )


def test_pathwise_leaves(tiny: Dataset):
    """Weights have the gradient of the score, leaves that of the samples."""
    generator = generators.circuit_generator(
        dataclasses.replace(SETTINGS, leaf="normal"), tiny
    )
    circuit = generator.circuit
    assert circuit is not None
    params = cases.jit(generator.init)(jax.random.key(0))
    x = jnp.asarray(tiny.train[:6], jnp.float32) / 16
    term = pixel_term(circuit.kernel, MmdSettings())

    def by_term(params, relaxation):
        return score_function.term_loss(
            relaxation,
            circuit,
            term.loss,
            term.advantages,
            params,
            jax.random.key(1),
            x,
            (),
        )[0]

    def by_samples(params):
        def sample(keys, params):
            return jax.vmap(circuit.circuit.sample, (0, None))(keys, params["circuit"])

        return term.loss(params, jax.random.key(1), x, (), sample)[0]

    def all_three(params):
        return (
            jax.grad(by_term)(params, "score_pathwise"),
            jax.grad(by_term)(params, "score_function"),
            jax.grad(by_samples)(params),
        )

    found, scored, pathwise = (tree["circuit"] for tree in cases.jit(all_three)(params))
    expected = scored._replace(leaves=pathwise.leaves)
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-6),
        found,
        expected,
    )
    assert np.abs(scored.leaves[0].mean - pathwise.leaves[0].mean).max() > 1e-3


def test_rebar(tiny: Dataset):
    """By the formula; leaves have the gradient of the samples, as in score_pathwise."""
    generator = generators.circuit_generator(
        dataclasses.replace(SETTINGS, leaf="normal"), tiny
    )
    circuit = generator.circuit
    assert circuit is not None
    params = cases.jit(generator.init)(jax.random.key(0))
    x = jnp.asarray(tiny.train[:6], jnp.float32) / 16
    term = pixel_term(circuit.kernel, MmdSettings())

    def by_term(params, relaxation):
        value, metrics = score_function.term_loss(
            relaxation,
            circuit,
            term.loss,
            term.advantages,
            params,
            jax.random.key(1),
            x,
            (),
            0.7,
        )
        return value, metrics["mmd2"]

    def by_library(params):
        keys = jax.random.split(jax.random.key(1), 6)
        s = rebar.draw(circuit.circuit.layout, keys, params["circuit"], 0.7)
        losses = [mmd2_unbiased(x, y, circuit.kernel) for y in s[:3]]
        exact, conditional = (
            set_advantages(lambda y: mmd2_unbiased(x, y, circuit.kernel), y)
            for y in (s.exact, s.conditional)
        )
        surrogate = rebar_surrogate(s.log_choices, exact, conditional, *losses[1:])
        return losses[0] + surrogate, losses[0]

    def all_three(params):
        both = functools.partial(jax.value_and_grad, has_aux=True)
        return (
            both(by_term)(params, "rebar"),
            both(by_library)(params),
            both(by_term)(params, "score_pathwise"),
        )

    found, expected, pathwise = cases.jit(all_three)(params)
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-5),
        found,
        expected,
    )
    found, pathwise = (tree[1]["circuit"] for tree in (found, pathwise))
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-6),
        found.leaves,
        pathwise.leaves,
    )
    weights = jax.tree.leaves(found._replace(leaves=()))
    others = jax.tree.leaves(pathwise._replace(leaves=()))
    assert max(np.abs(f - p).max() for f, p in zip(weights, others, strict=True)) > 1e-3


def test_a_loss_of_two_sets_is_refused(tiny: Dataset):
    generator = generators.circuit_generator(SETTINGS, tiny)
    assert generator.circuit is not None
    params = cases.jit(generator.init)(jax.random.key(0))

    def loss(params, key, x, adversary, sample):
        first, second = jax.random.split(key)
        one = sample(jax.random.split(first, 3), params)
        return jnp.mean(one - sample(jax.random.split(second, 3), params)), {}

    with pytest.raises(UserError, match="--relaxation must not be score_function .* 2"):
        score_function.term_loss(
            "score_function",
            generator.circuit,
            loss,
            None,
            params,
            jax.random.key(1),
            jnp.zeros((3, 8, 1)),
            (),
        )


def test_implicit_is_refused_early(tiny: Dataset):
    with pytest.raises(UserError, match="must not be 'implicit' without leaves"):
        generators.circuit_generator(
            Settings(relaxation="implicit", leaf="binomial"), tiny
        )
    wide = tiny._replace(
        height=10, width=8, train=np.tile(tiny.train, (1, 10, 1)).astype(np.uint8)
    )
    with pytest.raises(UserError, match="more than 64 variables .* got 80"):
        generators.circuit_generator(
            Settings(relaxation="implicit", leaf="normal"), wide
        )
