"""EM where classes are observed, or examples have weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import dspc_jax as pc
from tests import cases
from tests.learning import choices


def assert_close(a: Any, b: Any) -> None:
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=2e-4, atol=2e-5)


def total(trees: list[Any]) -> Any:
    return functools.reduce(lambda a, b: jax.tree.map(np.add, a, b), trees)


@pytest.mark.parametrize("batch_size", [pytest.param(None, marks=pytest.mark.slow), 4])
def test_counts_are_those_of_the_trees_of_each_class(batch_size):
    """An example whose class is not known counts for both."""
    circuit, params, x, observed = choices.model("trees")
    labels = np.resize([0, 1, 1, -1], len(x))
    weights = np.resize([1.0, 0.0, 2.5], len(x)).astype(np.float32)
    by_class = [pc.given_class(params, 0), pc.given_class(params, 1), params]
    parts = [
        choices.summed(circuit, by_class[label], x[[i]], observed[[i]])
        for i, label in enumerate(labels)
    ]
    count = cases.jit(
        functools.partial(pc.expected_counts, circuit, batch_size=batch_size)
    )
    counts = count(params, x, observed, labels=labels)
    assert_close(counts, total(parts))
    np.testing.assert_allclose(counts.classes.sum(), len(x), rtol=1e-5)
    weighted = [
        jax.tree.map(lambda a, w=w: w * a, part)
        for w, part in zip(weights, parts, strict=True)
    ]
    counts = count(params, x, observed, labels=labels, example_weights=weights)
    assert_close(counts, total(weighted))


NUM_CLASSES = 3


def naive_bayes() -> tuple[pc.Circuit, Any]:
    """A circuit in which class y is the product of the leaves of unit y."""
    structure = pc.RandomBinaryTrees(4, 1, 1)
    circuit = pc.build(
        pc.CircuitConfig(structure, pc.Categorical(3), 1, 3, 3, NUM_CLASSES)
    )
    params = circuit.init(jax.random.key(0))
    own = jnp.where(jnp.eye(NUM_CLASSES, dtype=bool), 0.0, -jnp.inf)
    sums = jax.tree.map(lambda a: jnp.broadcast_to(own, a.shape), params.sums)
    return circuit, params._replace(sums=sums)


def test_one_step_has_the_frequencies_of_each_class():
    """Naive Bayes, in NumPy; classes that traced labels cannot be do not count."""
    circuit, params = naive_bayes()
    rng = np.random.default_rng(0)
    labels = rng.choice(NUM_CLASSES, 60, p=[0.5, 0.3, 0.2])
    x = (labels[:, None] + rng.integers(2, size=(60, 4))) % 3
    labels[:5] = 7

    @cases.jit
    def step(params, labels):
        counts: Any = pc.expected_counts(circuit, params, x[..., None], labels=labels)
        change, _ = pc.em(circuit).update(counts, optax.EmptyState(), params)
        return optax.apply_updates(params, change)

    new = step(params, labels)
    labels, x = labels[5:], x[5:]
    frequencies = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(special.softmax(new.classes), frequencies, rtol=1e-5)
    rows = pc.parameter_rows(circuit).leaves
    graph = pc.parameter_rows(circuit).graph
    for region, variable in rows:
        i, row, place = rows[region, variable]
        table = special.softmax(new.leaves[i].logits[row, :, place, 0], -1)
        for label in range(NUM_CLASSES):
            column = x[labels == label, variable]
            wanted = np.bincount(column, minlength=3) / len(column)
            np.testing.assert_allclose(table[label], wanted, atol=1e-5)
    assert sum(len(graph.scopes[region]) == 2 for region, _ in rows) == 4


def test_the_likelihood_of_values_and_labels_never_falls():
    circuit, params, x, observed = choices.model("trees")
    labels = np.resize([0, 1, 1, -1], len(x))
    em = pc.em(circuit)

    def log_joint(params):
        by_class = jax.vmap(circuit.class_log_probs, (None, 0, 0))(params, x, observed)
        joint = by_class + jax.nn.log_softmax(params.classes)[None]
        rows = jnp.arange(len(x))
        known = joint[rows, labels]
        return jnp.where(labels < 0, jax.nn.logsumexp(joint, axis=1), known).sum()

    @cases.jit
    def step(params):
        counts: Any = pc.expected_counts(circuit, params, x, observed, labels=labels)
        change, _ = em.update(counts, optax.EmptyState(), params)
        return log_joint(params), optax.apply_updates(params, change)

    totals = []
    for _ in range(8):
        value, params = step(params)
        totals.append(float(value))
    assert (np.diff(totals) > -1e-3).all()
    assert totals[-1] > totals[0] + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 1]}, r"labels must be integers of shape \[N\] = \(10,\)"),
        ({"labels": np.zeros(10)}, r"labels must be integers .* got float64"),
        ({"labels": [2] * 10}, "labels must be in 0 .. 1, or -1 .* got 2"),
        (
            {"example_weights": [1.0]},
            r"example_weights must have shape \[N\] = \(10,\)",
        ),
        ({"example_weights": [-1.0] * 10}, "example_weights must be .* got -1.0"),
        ({"example_weights": [np.nan] * 10}, "example_weights must be .* got nan"),
    ],
)
def test_wrong_labels_and_weights_are_named(options, message):
    circuit, params, x, _ = choices.model("trees")
    with pytest.raises(ValueError, match=message):
        pc.expected_counts(circuit, params, x, **options)
