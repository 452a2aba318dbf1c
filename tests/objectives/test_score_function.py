"""Advantages by leaving one out in NumPy, and their gradient by enumeration of sets."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.objectives import (
    gaussian_kernel,
    mean_advantages,
    mmd2_unbiased,
    mmd_advantages,
    score_surrogate,
    set_advantages,
)
from tests import cases

KERNEL = gaussian_kernel((0.7, 1.5))


def plain_mmd2(x, y):
    """The unbiased squared MMD in float64 loops."""

    def k(a, b):
        d = ((a - b) ** 2).sum()
        return sum(np.exp(-d / (2 * s**2)) for s in (0.7, 1.5))

    def within(z):
        n = len(z)
        pairs = itertools.permutations(range(n), 2)
        return sum(k(z[i], z[j]) for i, j in pairs) / (n * (n - 1))

    between = np.mean([[k(a, b) for b in y] for a in x])
    return within(x) + within(y) - 2 * between


def test_mmd_advantages_leave_one_out():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=(6, 2))
    exact = [
        plain_mmd2(x, y) - plain_mmd2(x, np.delete(y, i, axis=0)) for i in range(6)
    ]
    args = (jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))

    @cases.jit
    def both(x, y):
        by_sets = set_advantages(lambda y: mmd2_unbiased(x, y, KERNEL), y)
        return mmd_advantages(x, y, KERNEL), by_sets

    for result in both(*args):
        np.testing.assert_allclose(result, exact, atol=2e-6)


def test_mean_advantages_leave_one_out():
    losses = np.array([3.0, -1.0, 0.5, 7.0])
    exact = [losses.mean() - np.delete(losses, i).mean() for i in range(4)]
    result = mean_advantages(jnp.asarray(losses, jnp.float32))
    np.testing.assert_allclose(result, exact, rtol=1e-6)


@functools.cache
def enumerated():
    """A circuit of two coins: its values, and all sets of three with probabilities."""
    circuit = pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(2, 1, 2, seed=0), pc.Bernoulli(), 1, 2, 2, 2
        )
    )
    params = cases.random_params(circuit, seed=3)
    values = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    sets = np.array(list(itertools.product(range(4), repeat=3)))
    return circuit, params, jnp.asarray(values[..., None], jnp.float32), sets


DATA = jnp.array([[[1.0], [0.0]], [[1.0], [1.0]], [[0.5], [0.0]]])
LOSSES = {
    "mmd": lambda y: mmd2_unbiased(DATA, y, KERNEL),
    # No mean and no U-statistic, and without a gradient.
    "products": lambda y: jnp.prod(jnp.sum(y, (1, 2)) + 0.5) + jnp.max(y[:, 0]),
}


def leaving_out_nothing(loss, y):
    """Negative control: a baseline that has seen its own sample."""
    del loss
    n = y.shape[0]
    d = ((y[:, None] - y[None]) ** 2).sum((2, 3))
    within = (KERNEL.value(d) - KERNEL.value(0 * d) * jnp.eye(n)).sum(1)
    between = KERNEL.value(((y[:, None] - DATA[None]) ** 2).sum((2, 3))).mean(1)
    witness = 2 * within / (n - 1) - 2 * between
    return mean_advantages(witness)


def advantages_of_mmd(loss, y):
    del loss
    return mmd_advantages(DATA, y, KERNEL)


@pytest.mark.parametrize(
    ("name", "advantages", "unbiased"),
    [
        pytest.param("mmd", set_advantages, True, marks=pytest.mark.slow),
        pytest.param("mmd", advantages_of_mmd, True, marks=pytest.mark.slow),
        ("products", set_advantages, True),
        ("mmd", leaving_out_nothing, False),
    ],
)
def test_the_mean_gradient_is_exact(name, advantages, unbiased):
    """Over all sets of three samples with their probabilities: no sampling error."""
    circuit, params, values, sets = enumerated()
    loss = LOSSES[name]
    drawn = values[sets]
    with jax.numpy_rank_promotion("allow"):
        totals = cases.jit(jax.vmap(loss))(drawn)
        of_samples = cases.jit(jax.vmap(lambda y: advantages(loss, y)))(drawn)

    def log_probs(params):
        return jax.vmap(circuit.log_prob, (None, 0))(params, values)

    probs = jnp.exp(cases.jit(log_probs)(params))[sets].prod(axis=1)

    def mean_loss(params):
        return jnp.exp(log_probs(params)[sets].sum(axis=1)) @ totals

    def mean_surrogate(params):
        each = jax.vmap(score_surrogate)(log_probs(params)[sets], of_samples)
        return probs @ each

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    exact = flat(cases.jit(jax.grad(mean_loss))(params))
    result = flat(cases.jit(jax.grad(mean_surrogate))(params))
    error = np.linalg.norm(result - exact) / np.linalg.norm(exact)
    assert error < 1e-4 if unbiased else error > 0.02


def test_an_impossible_sample_without_advantage_does_not_count():
    def surrogate(log_p):
        return score_surrogate(log_p, jnp.array([0.0, 2.0]))

    gradient = jax.grad(surrogate)(jnp.array([-jnp.inf, -1.0]))
    np.testing.assert_array_equal(gradient, [0.0, 2.0])


def test_bad_input():
    one = jnp.zeros((1, 2, 1))
    with pytest.raises(ValueError, match="losses must hold at least 2 .*got 1"):
        mean_advantages(jnp.zeros(1))
    with pytest.raises(ValueError, match="samples must hold at least 2 .*got 1"):
        set_advantages(jnp.sum, one)
    with pytest.raises(ValueError, match="y must hold at least 3 entries, got 1"):
        mmd_advantages(one, one, KERNEL)
    with pytest.raises(ValueError, match=r"must have one shape, got \(3,\) and \(2,\)"):
        score_surrogate(jnp.zeros(3), jnp.zeros(2))
