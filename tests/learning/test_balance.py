"""Gradients of several losses, added and balanced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.learning.balance import balanced_gradient, unit_norm

PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}


def near(params):
    loss = jnp.sum(params["a"] ** 2) + params["b"]
    return loss, {"root": jnp.sqrt(loss)}


def far(params):
    return 100 * params["b"], {}


def flat(gradient):
    return [*map(float, gradient["a"]), float(gradient["b"])]


def test_the_weighted_sum_and_its_metrics():
    gradient, metrics = balanced_gradient(
        PARAMS, {"near": (2.0, near), "far": (0.5, far)}
    )
    np.testing.assert_allclose(flat(gradient), [4, 8, 2 + 50])
    expected = {
        "root": np.sqrt(8),
        "near_term": 2 * 8,
        "near_grad_norm": 2 * np.sqrt(4 + 16 + 1),
        "far_term": 0.5 * 300,
        "far_grad_norm": 50,
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6)


def test_balanced_parts_have_the_norms_of_their_weights():
    losses = {"near": (2.0, near), "far": (0.5, far)}
    gradient, metrics = balanced_gradient(PARAMS, losses, balance="norm")
    unit = np.asarray([2, 4, 1]) / np.sqrt(21)
    np.testing.assert_allclose(flat(gradient), 2 * unit + [0, 0, 0.5], rtol=1e-6)
    # The metrics are those of the gradients as they were.
    np.testing.assert_allclose(metrics["far_grad_norm"], 50)
    alone, _ = balanced_gradient(PARAMS, {"far": (3.0, far)}, balance="norm")
    np.testing.assert_allclose(flat(alone), [0, 0, 3])


def test_zeros_stay_zeros():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    np.testing.assert_array_equal(flat(unit_norm(zeros)), [0, 0, 0])


def test_a_traced_weight_does_not_recompile():
    traces = []

    @jax.jit
    def gradient(weight):
        traces.append(None)
        return balanced_gradient(PARAMS, {"far": (weight, far)})[0]

    slopes = [flat(gradient(weight))[-1] for weight in (1.0, 0.0, 0.25)]
    np.testing.assert_allclose(slopes, [100, 0, 25])
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("losses", "balance", "message"),
    [
        ({}, "none", "losses must name at least one loss"),
        ({"far": (1.0, far)}, "size", "balance must be one of none, norm, got 'size'"),
        ({"far": (float("nan"), far)}, "none", "weight of far must be finite, got nan"),
    ],
)
def test_bad_input_is_refused(losses, balance, message):
    with pytest.raises(ValueError, match=message):
        balanced_gradient(PARAMS, losses, balance=balance)
