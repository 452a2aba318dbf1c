"""The negative log-likelihood."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.objectives import negative_log_likelihood
from tests import cases


def _log_prob(params, x):
    """Independent Normal(mean, 1) variables."""
    return jnp.sum(-0.5 * (x - params) ** 2 - 0.5 * jnp.log(2 * jnp.pi))


def test_the_loss_is_the_mean_and_its_gradient_that_of_the_mean():
    batch = cases.normal(0, 7, 4, 2)
    params = np.arange(8, dtype=np.float32).reshape(4, 2)
    loss = functools.partial(negative_log_likelihood, log_prob=_log_prob)
    both = cases.jit(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), gradient = both(params, jax.random.key(1), batch)
    squares = (batch - params) ** 2
    expected = (0.5 * squares + 0.5 * np.log(2 * np.pi)).sum((1, 2)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["log_likelihood"], -expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, params - batch.mean(0), rtol=1e-4, atol=1e-5)


def test_an_impossible_example_is_not_hidden():
    def log_prob(params, x):
        return jnp.where(x[0, 0] > 0, params, -jnp.inf)

    batch = jnp.asarray([1.0, -1.0])[:, None, None]
    loss, _ = negative_log_likelihood(
        jnp.zeros(()), jax.random.key(0), batch, log_prob=log_prob
    )
    assert loss == jnp.inf


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one example, got the shape"):
        negative_log_likelihood(
            jnp.zeros(()), jax.random.key(0), jnp.zeros((0, 4, 2)), log_prob=_log_prob
        )
