"""A term's loss with the gradient that ``--relaxation`` asks for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.objectives import mmd_advantages, mmd_loss, with_score
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.losses.mmd import MmdSettings, exact_term, kernel_term
from experiments.losses.term import objective
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


def close(found, expected):
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-5),
        found,
        expected,
    )


@pytest.mark.parametrize(
    "in_closed_form", [pytest.param(True, marks=pytest.mark.slow), False]
)
def test_the_score_is_that_of_the_library(tiny: Dataset, in_closed_form: bool):
    """In gray values, of a circuit whose leaves have the units of levels."""
    settings = dataclasses.replace(SETTINGS, relaxation="score_function")
    generator = generators.circuit_generator(settings, tiny)
    model = generator.circuit
    assert model is not None
    params = cases.jit(generator.init)(jax.random.key(0))
    x = jnp.asarray(tiny.train[:6], jnp.float32) / 16
    term = kernel_term(model.kernel, MmdSettings())
    if not in_closed_form:
        term = term._replace(advantages=None)

    def by_term(params):
        sample = generator.sampler(params, jnp.int32(0))
        loss = objective(
            term,
            (),
            sample,
            settings.relaxation,
            model.circuit,
            generator.codec.to_unit,
        )
        return loss(params, jax.random.key(1), x)

    def by_library(params):
        def loss(params, key, x, *, sample):
            return mmd_loss(
                params,
                key,
                x,
                sample=lambda *asked: sample(*asked) / 16,
                kernel=model.kernel,
            )

        scored = with_score(
            loss,
            model.circuit,
            advantages=lambda x, y: mmd_advantages(x, y / 16, model.kernel),
        )
        return scored(params["circuit"], jax.random.key(1), x)

    def both(loss):
        return cases.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (value, metrics), gradient = both(by_term)
    (expected, expected_metrics), expected_gradient = both(by_library)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-3
    close((value, gradient), (expected, expected_gradient))
    assert metrics.keys() == expected_metrics.keys()


def test_no_relaxation_matters_to_a_loss_without_samples(tiny: Dataset):
    settings = dataclasses.replace(SETTINGS, leaf="normal")
    generator = generators.circuit_generator(settings, tiny)
    model = generator.circuit
    assert model is not None
    params = cases.jit(generator.init)(jax.random.key(0))
    x = jnp.asarray(tiny.train[:6], jnp.float32) / 16
    term = exact_term(model, MmdSettings(mmd_estimator="exact"), tiny)

    def sample(keys, params):
        raise AssertionError("the exact MMD needs no samples")

    sampler = generators.Sampler(sample)
    values = []
    for relaxation in ("simple", "score_function"):
        loss = objective(term, (), sampler, relaxation, model.circuit)
        values.append(cases.jit(loss)(params, jax.random.key(1), x)[0])
    assert values[0] == values[1]
