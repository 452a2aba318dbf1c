"""Parameters that are frequencies under clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.starts.distillation import Smoothing, distill
from tests import cases

NONE = Smoothing(0.0, 1e-3, 1e-3)


def two_groups(num: int = 40) -> np.ndarray:
    """Two patterns of four variables; the last variable tells their halves apart."""
    group = np.arange(num) % 2
    x = np.stack([group, group, group, 1 - group], 1) * 2
    return x[..., None].astype(np.float32)


@pytest.mark.parametrize(
    "sum_layer", cases.parameters(["cp_t", "cp", "tucker"], ["tucker"])
)
def test_a_mixture_of_two_patterns_is_read_off(sum_layer):
    """Each pattern gets half of the probability, and nothing else has any."""
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 2), pc.Categorical(3), 1, 2, 2, sum_layer=sum_layer
    )
    circuit = pc.build(config)
    x = two_groups()
    params = distill(circuit.layout, jax.random.key(0), jnp.asarray(x), smoothing=NONE)
    log_p = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, x[:2])
    np.testing.assert_allclose(np.exp(log_p), 0.5, rtol=0.02)
    shapes = jax.eval_shape(lambda key: circuit.init(key), jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), params, shapes)


def test_labels_are_the_latent_of_the_roots():
    """Classes at random within clusters: each root has its own share of them."""
    sizes = {"num_classes": 3, "num_leaves": 2, "num_sums": 2}
    config = pc.CircuitConfig(pc.RandomBinaryTrees(2, 1), pc.Categorical(2), **sizes)
    circuit = pc.build(config)
    x = np.array([[0, 0]] * 60 + [[1, 1]] * 60, np.float32)[..., None]
    labels = np.array([0] * 15 + [1] * 45 + [0] * 30 + [2] * 30)
    params = circuit.init(jax.random.key(0), x, method="distill", labels=labels)
    log_p = cases.jit(jax.vmap(circuit.class_log_probs, (None, 0)))(params, x[[0, -1]])
    # Of class 0 a third are zeros, of class 1 all, of class 2 none.
    expected = [[1 / 3, 1, 0], [2 / 3, 0, 1]]
    np.testing.assert_allclose(np.exp(log_p), expected, atol=0.05)
    shares = jax.nn.softmax(params.classes)
    np.testing.assert_allclose(shares, np.array([46, 46, 31]) / 123, rtol=1e-5)
    for message, wrong in {
        "in 0 .. 2, the classes of the circuit, got 3": np.where(labels > 1, 3, 0),
        r"integers of shape \[N\] = \(120,\), got float64": labels / 2,
    }.items():
        with pytest.raises(ValueError, match=f"labels must be {message}"):
            circuit.init(jax.random.key(0), x, method="distill", labels=wrong)
    with pytest.raises(ValueError, match="labels must be None with method='examples'"):
        circuit.init(jax.random.key(0), x, labels=labels)


def test_counts_by_hand():
    """One product of two variables: weights and tables are the smoothed frequencies."""
    graph = pc.RandomBinaryTrees(2, 1)
    config = pc.CircuitConfig(graph, pc.Categorical(2), 1, 2, 2)
    circuit = pc.build(config)
    x = np.array([[0, 0]] * 6 + [[1, 1]] * 3, np.float32)[..., None]
    smoothing = Smoothing(sums=0.5, leaves=2.0, uniform=1.0)
    params = distill(
        circuit.layout, jax.random.key(0), jnp.asarray(x), smoothing=smoothing
    )
    weights = jax.nn.softmax(params.sums[0][0][0, 0])
    share = np.array([6.01, 3.01]) / 9.02
    expected = (np.array([6, 3]) + 0.5 * 2 * share) / 10
    np.testing.assert_allclose(np.sort(weights), np.sort(expected), rtol=1e-5)
    tables = np.asarray(jax.nn.softmax(params.leaves[0].logits, -1))[0, :, 0, 0]
    values = np.array([6.001, 3.001]) / 9.002
    rows = [np.array(n) + 2 * values + 0.5 for n in ([6, 0], [0, 3])]
    rows = [row / row.sum() for row in rows]
    order = np.argsort(-tables[:, 0])
    np.testing.assert_allclose(tables[order], rows, rtol=1e-5)


def latent_tree() -> tuple[pc.Circuit, pc.CircuitConfig]:
    structure = pc.QuadTree(2, 4)
    config = pc.CircuitConfig(structure, pc.Categorical(4), 1, 3, 3, sum_layer="cp")
    return pc.build(config), config


@pytest.mark.slow
def test_data_of_a_latent_tree():
    """Well apart, they are found: the likelihood is nearly that of their own circuit.

    Starts at examples are far from it.
    """
    circuit, _ = latent_tree()
    params = cases.random_params(circuit, seed=0)
    sharp = jax.tree.map(lambda a: 4 * a, params)
    draw = cases.jit(jax.vmap(circuit.sample, (0, None)))
    x = np.asarray(draw(cases.fresh_keys(0, 3000), sharp))
    log_prob = cases.jit(
        lambda params: jnp.mean(jax.vmap(circuit.log_prob, (None, 0))(params, x))
    )
    best, examples, result = (
        float(log_prob(p))
        for p in (
            sharp,
            circuit.init(jax.random.key(1), x),
            circuit.init(jax.random.key(1), x, method="distill"),
        )
    )
    assert best - result < 0.35 * (best - examples), (best, result, examples)


def test_what_is_missing_does_not_matter():
    circuit, _ = latent_tree()
    x = np.random.default_rng(0).integers(0, 4, (50, 8, 1)).astype(np.float32)
    observed = np.random.default_rng(1).random((50, 8)) < 0.7
    observed[:, 3] = False
    some = circuit.init(jax.random.key(0), x, observed, method="distill")
    x[~observed] = np.nan
    other = circuit.init(jax.random.key(0), x, observed, method="distill")
    jax.tree.map(np.testing.assert_array_equal, some, other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(some))


@pytest.mark.parametrize(
    ("leaf", "offset"),
    [
        (pc.Normal(), 0.0),
        (pc.Normal(), 2.0**18),  # far from 0, where float32 has steps of 1/32
        (pc.Binomial(3), 0.0),
        (pc.DiscretizedLogistic(4), 0.0),
    ],
    ids=repr,
)
def test_leaves_have_the_moments_of_their_clusters(leaf, offset):
    config = pc.CircuitConfig(pc.RandomBinaryTrees(1, 0), leaf, 1, 2, 2)
    circuit = pc.build(config)
    x = np.repeat([0.0, 1.0, 3.0, 3.0], 50)[:, None, None].astype(np.float32)
    params = circuit.init(jax.random.key(0), x + offset, method="distill")
    means = np.sort(np.ravel(leaf.mean(leaf.components(params.leaves[0]))))
    np.testing.assert_allclose(means - offset, [0.5, 3.0], atol=0.12)


def test_mistakes_are_refused():
    circuit, _ = latent_tree()
    with pytest.raises(ValueError, match="data must be given with method='distill'"):
        circuit.init(jax.random.key(0), method="distill")
    with pytest.raises(ValueError, match=r"method must be one of .*, got 'best'"):
        circuit.init(jax.random.key(0), method="best")
    x = np.zeros((4, 8, 1), np.float32)
    with pytest.raises(ValueError, match="data must not be traced"):
        jax.jit(lambda x: circuit.init(jax.random.key(0), x, method="distill"))(x)
    shared = pc.build(pc.CircuitConfig(cases.SHARED, pc.Categorical(3), 1, 2, 2))
    x = np.zeros((4, cases.SHARED.num_variables, 1), np.float32)
    with pytest.raises(ValueError, match="structure must let every region enter"):
        shared.init(jax.random.key(0), x, method="distill")
