"""Input regions: products of leaves over padded scopes, masked and mixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.layers import input_layer
from tests import cases, oracles

SCOPES = np.array([[0, 3, 4], [1, 2, -1], [2, 0, -1]])
V, C, K, N = 5, 2, 3, 7

FAMILIES = {
    "binomial": (pc.Binomial(6),) * V,
    "normal": (pc.UnitNormal(0.5, 2.0),) * V,
    "categorical": (pc.Categorical(4),) * V,
    "logistic": (pc.DiscretizedLogistic(5),) * V,
    "mixed": (
        pc.Bernoulli(),
        pc.UnitNormal(),
        pc.Categorical(3),
        pc.Bernoulli(),
        pc.DiscretizedLogistic(4),
    ),
    "binomial of many sizes": tuple(pc.Binomial(n) for n in (9, 1, 4, 4, 3)),
    "normal of many bounds": tuple(
        pc.Normal(0.1 * (v + 1), 3.0 * (v + 1)) for v in range(V)
    ),
    "categorical of many sizes": tuple(pc.Categorical(n) for n in (2, 5, 3, 4, 5)),
    "logistic of many sizes": tuple(
        pc.DiscretizedLogistic(n, 0.1 * n) for n in (2, 5, 3, 4, 5)
    ),
}
# Those of many sizes are padded, too.
ALIKE = ("binomial", "normal", "categorical", "logistic")


def random_layer(leaves, seed=0):
    """Blocks, parameters and values ``[V, C, N]`` in the support."""
    rng = np.random.default_rng(seed)
    blocks = input_layer.make_blocks(SCOPES, leaves)
    params = [
        jax.tree.map(
            lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32),
            jax.eval_shape(
                lambda key, block=block: input_layer.init(key, block, K, C),
                jax.random.key(0),
            ),
        )
        for block in blocks
    ]
    x = np.empty((V, C, N), np.float32)
    for v, leaf in enumerate(leaves):
        low, high = leaf.support
        draw = rng.integers(low, high + 1, (C, N)) if np.isfinite(high) else None
        x[v] = rng.normal(size=(C, N)) if draw is None else draw
    return blocks, params, jnp.asarray(x)


def layer_log_prob_of(blocks):
    def log_prob(params, x, observed):
        return sum(
            input_layer.log_prob(block, block.leaf.natural(leaf), x, observed)
            for block, leaf in zip(blocks, params, strict=True)
        )

    return log_prob


def base_of(leaf, x):
    """The base measure of a variable (the layer leaves it out)."""
    return np.asarray(leaf.log_base(x)).sum(axis=0) if leaf.exponential else 0.0


def plain(leaves, blocks, params, x, observed):
    """Leaf by leaf, from the oracle's distributions."""
    out = np.zeros((len(SCOPES), K, N))
    for block, leaf_params in zip(blocks, params, strict=True):
        for g in range(len(SCOPES)):
            for place, v in enumerate(block.scopes[g]):
                if not block.valid[g, place]:
                    continue
                for c in range(C):
                    at = [np.asarray(p)[g, :, place, c, None] for p in leaf_params]
                    out[g] += observed[v] * oracles.leaf_log_prob(
                        leaves[v], at, x[v, c]
                    )
                out[g] -= base_of(leaves[v], x[v]) * observed[v]
    return out


@pytest.mark.parametrize("name", cases.parameters(FAMILIES, ALIKE))
def test_products_of_leaves(name):
    blocks, params, x = random_layer(FAMILIES[name])
    layer_log_prob = cases.jit(layer_log_prob_of(blocks))
    out = layer_log_prob(params, x, None)
    everything = np.ones((V, N), bool)
    np.testing.assert_allclose(
        out, plain(FAMILIES[name], blocks, params, x, everything), rtol=1e-4
    )
    observed = np.random.default_rng(1).random((V, N)) < 0.5
    masked = np.where(observed[:, None], x, np.float32(0))
    out = layer_log_prob(params, masked, observed)
    np.testing.assert_allclose(
        out, plain(FAMILIES[name], blocks, params, x, observed), rtol=1e-4, atol=1e-5
    )


def test_blocks_partition_the_scopes():
    blocks = input_layer.make_blocks(SCOPES, FAMILIES["mixed"])
    assert [block.leaf for block in blocks] == list(dict.fromkeys(FAMILIES["mixed"]))
    for name, leaves in FAMILIES.items():
        families = set(map(type, leaves))
        assert len(input_layer.make_blocks(SCOPES, leaves)) == len(families), name
    for g, scope in enumerate(SCOPES):
        members = [v for block in blocks for v in block.scopes[g][block.valid[g]]]
        assert sorted(members) == sorted(v for v in scope if v >= 0)
    assert sorted(np.concatenate([block.variables for block in blocks])) == list(
        range(V)
    )


def test_long_scopes_are_scanned_alike():
    """More than four variables in a region take another route for tables."""
    leaves = (pc.Categorical(3),) * 9
    for length in (4, 5):
        (block,) = input_layer.make_blocks(np.arange(length)[None], leaves)
        rng = np.random.default_rng(length)
        logits = np.float32(rng.normal(size=(1, K, length, C, 3)))
        x = rng.integers(0, 3, (9, C, N)).astype(np.float32)
        params = type(block.leaf.init(jax.random.key(0), ()))(logits)
        out = cases.jit(layer_log_prob_of([block]))([params], x, None)
        exact = np.zeros((1, K, N))
        for v in range(length):
            for c in range(C):
                exact[0] += oracles.leaf_log_prob(
                    block.leaf, [logits[0, :, v, c][:, None]], x[v, c]
                )
        np.testing.assert_allclose(out, exact, rtol=1e-5)


def test_units_start_at_examples():
    """``init(data=...)``: each unit's mean is a row of the data, in every variable."""
    leaves = (pc.UnitNormal(),) * V
    (block,) = input_layer.make_blocks(SCOPES, leaves)
    data = np.random.default_rng(1).random((11, V, C), np.float32)
    params = cases.jit(
        lambda key: input_layer.init_from_data(key, block, K, jnp.asarray(data), 0.5)
    )(jax.random.key(2))
    for g, scope in enumerate(SCOPES):
        scope = [v for v in scope if v >= 0]
        for k in range(K):
            mean = np.asarray(params.mean)[g, k, : len(scope)]
            assert any(np.allclose(mean, row[scope]) for row in np.asarray(data))
