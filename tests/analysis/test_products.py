"""Integrals of products of two circuits, and the product as a circuit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases, oracles

_mixed = cases.DISCRETE["mixed"].leaf
_trees = pc.RandomBinaryTrees


def _config(structure, leaf, sum_layer, **sizes):
    sizes = {"num_leaves": 2, "num_sums": 3} | sizes
    return pc.CircuitConfig(structure, leaf, sum_layer=sum_layer, **sizes)


CONFIGS = {
    "tucker": _config(_trees(4, 2), pc.Binomial(2), "tucker", num_classes=2),
    "quad": _config(pc.QuadTree(2, 2), pc.Bernoulli(), "cp_t", num_sums=2),
    "cp": _config(_trees(6, 1), _mixed, "cp"),
    "channels": _config(_trees(2, 1), pc.Categorical(3), "cp_t", num_channels=2),
    "tied": _config(
        pc.QuadTree(2, 2), pc.Categorical(3), "cp_t", tie_leaves="all", num_classes=2
    ),
}


@pytest.mark.parametrize(
    "name", cases.parameters(CONFIGS, ("tucker", "cp", "channels", "tied"))
)
def test_products_are_sums_over_the_table(name):
    """Of circuits with other numbers of units; the product as a distribution."""
    config = CONFIGS[name]
    circuit = pc.build(config)
    more = {"num_leaves": config.num_leaves + 1, "num_sums": config.num_sums + 1}
    other = pc.build(dataclasses.replace(config, **more, num_classes=1))
    params, others = cases.random_params(circuit, 0), cases.random_params(other, 1)
    values = oracles.all_values(circuit)
    built, product = pc.product(circuit, params, others, other=other)
    inner = pc.log_inner_product(circuit, params, others, other=other)
    divergence = pc.cauchy_schwarz_divergence(circuit, params, others, other=other)
    none = pc.cauchy_schwarz_divergence(circuit, params, params)
    entropy = pc.collision_entropy(circuit, params)

    @cases.jit
    def queries(params, others, product, x):
        pairs = ((circuit, params), (other, others), (built, product))
        return [jax.vmap(one.log_prob, (None, 0))(own, x) for one, own in pairs]

    *log_p, log_product = queries(params, others, product, np.float32(values))
    p, q = (np.exp(np.asarray(log, np.float64)) for log in log_p)
    np.testing.assert_allclose(inner, np.log(p @ q), rtol=1e-5)
    expected = -np.log(p @ q / np.sqrt((p @ p) * (q @ q)))
    np.testing.assert_allclose(divergence, expected, atol=2e-5)
    assert abs(none) < 2e-5
    np.testing.assert_allclose(entropy, -np.log(p @ p), rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_product), p * q / (p @ q), atol=1e-6)
    assert built.config.num_sums == config.num_sums * other.config.num_sums


@pytest.mark.slow
def test_normal_leaves_by_quadrature():
    config = _config(_trees(2, 1), pc.Normal(), "tucker", num_sums=2)
    circuit = pc.build(config)
    params, others = (cases.random_params(circuit, seed) for seed in (0, 1))
    step = 0.05
    line = np.arange(-8, 8, step)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2, 1)

    @cases.jit
    def queries(params, others, x):
        log_prob = jax.vmap(circuit.log_prob, (None, 0))
        built, own = pc.product(circuit, params, others)
        inner = pc.log_inner_product(circuit, params, others)
        product = jax.vmap(built.log_prob, (None, 0))(own, x)
        return inner, log_prob(params, x), log_prob(others, x), product

    inner, log_p, log_q, product = queries(params, others, np.float32(grid))
    density = np.exp(np.float64(log_p) + log_q)
    np.testing.assert_allclose(inner, np.log(density.sum() * step**2), atol=1e-4)
    seen = density > 1e-12
    np.testing.assert_allclose(product[seen], (log_p + log_q - inner)[seen], atol=1e-3)


def test_gradients_are_slopes_and_finite():
    """Also where a value is impossible under one of both, or under both."""
    circuit = pc.build(CONFIGS["quad"])
    params, others = (cases.random_params(circuit, seed) for seed in (0, 1))

    still = jax.tree.map(jnp.ones_like, params)

    @cases.jit
    def modes(params, others, step):
        def inner(params):
            return pc.log_inner_product(circuit, params, others)

        moved = jax.tree.map(lambda p, d: p + step * jnp.cos(d * p), params, still)
        along = jax.tree.map(lambda p, d: jnp.cos(d * p), params, still)
        return inner(moved), jax.jvp(inner, (params,), (along,))[1]

    step = 1e-2
    (above, slope), (below, _) = (modes(params, others, s) for s in (step, -step))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-2)


def test_what_is_not_compatible_is_refused():
    quad = pc.build(CONFIGS["quad"])
    forest = pc.build(_config(_trees(4, 1, 2), pc.Bernoulli(), "cp_t"))
    other = pc.build(_config(_trees(4, 2), pc.Bernoulli(), "cp_t", num_sums=2))
    wide = pc.build(_config(pc.QuadTree(2, 2), pc.Binomial(2), "cp_t", num_sums=2))
    params = cases.random_params(quad, 0)
    for first, second, match in (
        (forest, forest, "circuit must have one partition of every region"),
        (quad, other, "other must have the region graph of circuit"),
        (quad, wide, "other must have the leaves of circuit"),
        (None, quad, "circuit must be a Circuit"),
    ):
        with pytest.raises(ValueError, match=match):
            pc.log_inner_product(first, params, params, other=second)
