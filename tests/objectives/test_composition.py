"""Weighted sums of objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.objectives import weighted_sum


def _distance(params, key, batch):
    del key
    loss = jnp.mean((params - batch) ** 2)
    return loss, {"root": jnp.sqrt(loss)}


def _noise(params, key, batch):
    del batch
    draw = jax.random.normal(key)
    return params * draw, {"draw": draw}


BATCH = jnp.asarray([1.0, 3.0])


def _key():
    return jax.random.key(0)


def test_the_sum_of_losses_and_the_names_of_metrics():
    objective = weighted_sum({"near": (_distance, 2.0), "noise": (_noise, 0.5)})
    loss, metrics = objective(jnp.asarray(0.5), _key(), BATCH)
    assert set(metrics) == {"near/loss", "near/root", "noise/loss", "noise/draw"}
    expected = 2 * metrics["near/loss"] + 0.5 * metrics["noise/loss"]
    np.testing.assert_allclose(loss, expected)
    np.testing.assert_allclose(metrics["near/loss"], (0.25 + 6.25) / 2)
    gradient = jax.grad(lambda p: objective(p, _key(), BATCH)[0])(jnp.asarray(0.5))
    np.testing.assert_allclose(gradient, 2 * 2 * -1.5 + 0.5 * metrics["noise/draw"])


def test_every_term_has_its_own_key_and_keeps_it():
    both = weighted_sum({"a": (_noise, 1.0), "b": (_noise, 1.0)})(0.5, _key(), BATCH)[1]
    assert both["a/draw"] != both["b/draw"]
    one = weighted_sum({"a": (_noise, 0), "b": (_noise, 1.0)})(0.5, _key(), BATCH)[1]
    assert set(one) == {"b/loss", "b/draw"}
    assert one["b/draw"] == both["b/draw"]


def test_a_sum_is_an_objective():
    inner = weighted_sum({"near": (_distance, 2.0)})
    loss, metrics = weighted_sum({"inner": (inner, 3.0)})(jnp.zeros(()), _key(), BATCH)
    np.testing.assert_allclose(loss, 6 * 5.0)
    assert set(metrics) == {"inner/loss", "inner/near/loss", "inner/near/root"}


def test_a_term_of_weight_zero_is_not_evaluated():
    def broken(params, key, batch):
        raise AssertionError

    loss, _ = weighted_sum({"a": (_distance, 1.0), "b": (broken, 0.0)})(
        jnp.zeros(()), _key(), BATCH
    )
    np.testing.assert_allclose(loss, 5.0)


def test_a_traced_weight_does_not_recompile():
    traces = []

    @jax.jit
    def step(weight):
        traces.append(None)
        return weighted_sum({"a": (_distance, weight)})(jnp.zeros(()), _key(), BATCH)[0]

    np.testing.assert_allclose([step(1.0), step(0.0), step(0.1)], [5.0, 0.0, 0.5])
    assert len(traces) == 1


def test_bad_terms_are_refused():
    with pytest.raises(ValueError, match="at least one objective"):
        weighted_sum({})
    with pytest.raises(ValueError, match="must have a finite weight, got nan"):
        weighted_sum({"a": (_distance, float("nan"))})
