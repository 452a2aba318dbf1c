"""The flags of EM: the steps are those of the library."""

import jax
import numpy as np
import optax
import pytest

import dspc_jax as pc
from experiments import ll
from experiments.data.dataset import Dataset
from experiments.engine.flags import Settings
from experiments.engine.system import Labelled
from experiments.models.circuit import make_model
from experiments.models.em import make_em
from tests import cases

CHANGED = {"em_momentum": 0.5, "em_rescale": True, "em_pseudocount": 0.5}


def dataset() -> Dataset:
    images = np.random.default_rng(0).integers(0, 4, (24, 4, 1)).astype(np.uint8)
    splits = {"train": images[:16], "valid": images[16:20], "test": images[20:]}
    return Dataset(name="random", height=2, width=2, num_values=4, **splits)


def test_two_steps_are_those_of_the_library(key: jax.Array):
    settings = Settings(
        structure="quad_tree", leaf="categorical", num_leaves=2, num_sums=2, **CHANGED
    )
    model = make_model(settings, dataset())
    em = make_em(settings, model)
    circuit = model.circuit
    own = pc.em(
        circuit,
        step_size=0.1,
        pseudocount=0.5,
        leaf_pseudocount=0.0,
        momentum=0.5,
        rescale=True,
    )
    start = circuit.init(key)
    images = dataset().train

    @cases.jit
    def both(start):
        params, state = {"circuit": start}, em.init({"circuit": start})
        other, memory = start, own.init(start)
        for batch in (images[:8], images[8:]):
            params, state = em.step(params, state, batch, None)
            counts = pc.expected_counts(circuit, other, batch)
            update, memory = own.update(counts, memory, other)
            other = optax.apply_updates(other, update)
        return params["circuit"], other

    params, expected = both(start)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


def test_classes_are_observed_where_there_are_labels(key: jax.Array):
    """The program's step, on a batch with labels: shares of classes are moved to."""
    labels = np.resize([0, 1, 1, 2], 24).astype(np.int32)
    parts = {"train": labels[:16], "valid": labels[16:20], "test": labels[20:]}
    data = dataset()._replace(**{f"{k}_labels": v for k, v in parts.items()})
    settings = Settings(
        **{"structure": "quad_tree", "leaf": "categorical", "labels": "roots"},
        **{"num_leaves": 2, "num_sums": 2, "optimizer": "em", "em_step_size": 0.25},
    )
    system = ll.make_system(settings, data)
    assert system.labelled
    state = system.init(key)
    batch = Labelled(data.train, data.train_labels)
    step = cases.jit(lambda s, k, b: system.step(s, k, b, 0, lambda _: b))
    new, metrics = step(state, key, batch)
    weights = jax.nn.softmax(new.params["circuit"].classes)
    shares = 0.75 * np.full(3, 1 / 3) + 0.25 * np.array([0.25, 0.5, 0.25])
    np.testing.assert_allclose(weights, shares, rtol=1e-4)
    assert step(new, jax.random.clone(key), batch)[1]["loss"] < metrics["loss"]
