"""Circuits as values: documented functions, static arguments, pickles, shapes."""

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import circuit as circuits
from dspc_jax.flows.ladder import after_logit, color_flow, identity_flow
from tests import cases

CONFIG = pc.CircuitConfig(
    pc.RandomBinaryTrees(2, 1, 2), pc.Normal(), num_leaves=2, num_sums=2
)
CIRCUIT = pc.build(CONFIG)
PULLED = pc.transform(CIRCUIT, after_logit(identity_flow(1, 2)))
PARAMS = cases.random_params(CIRCUIT, seed=0)
QUERIES = (
    *("init", "log_prob", "class_log_probs", "joint_log_probs", "class_posterior"),
    *("sample", "sample_differentiable", "mpe", "mean"),
)
INTEGRALS = ("covariance", "expectation", "event_log_prob")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner in (CIRCUIT, PULLED) for name in QUERIES]
    + [(CIRCUIT, name) for name in INTEGRALS],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_functions_are_documented(owner, name):
    """An editor reads the field's type, help() the function; they say the same."""
    (field,) = (f for f in dataclasses.fields(owner) if f.name == name)
    assert not isinstance(field.type, str)
    call = field.type.__call__
    function = getattr(owner, name)
    doc = inspect.getdoc(function) or ""
    assert all(f"\n{section}:" in doc for section in ("Args", "Returns", "Raises"))
    assert inspect.cleandoc(call.__doc__ or "") == doc
    assert function.__name__ == name
    _, *parameters = inspect.signature(call).parameters.values()
    signature = inspect.signature(function)
    assert list(signature.parameters.values()) == parameters
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty:
            continue
        # What is computed with may be mapped by position; options have their names.
        is_operand = parameter.name in ("x", "observed", "data")
        assert (parameter.kind is parameter.KEYWORD_ONLY) is not is_operand


def test_every_implementation_has_the_signature_that_it_promises():
    for query in circuits.QUERIES:
        promised = inspect.signature(getattr(CIRCUIT, query.__name__))
        own = list(inspect.signature(query).parameters.values())[1:]
        for a, b in zip(own, promised.parameters.values(), strict=True):
            assert (a.name, a.kind, a.default) == (b.name, b.kind, b.default)


def test_equal_configurations_are_equal_circuits():
    other = circuits._build.__wrapped__(CONFIG)  # as after many others
    assert other is not CIRCUIT
    assert other == CIRCUIT
    assert hash(other) == hash(CIRCUIT)
    assert other.log_prob == CIRCUIT.log_prob
    assert pc.build(dataclasses.replace(CONFIG, num_sums=3)) != CIRCUIT
    assert dataclasses.replace(CIRCUIT, mean=CIRCUIT.mpe) != CIRCUIT
    assert pc.transform(other, PULLED.flow) == PULLED
    assert pc.transform(CIRCUIT, identity_flow(1, 2)) != PULLED
    assert len(repr(CIRCUIT)) < 400


@pytest.mark.parametrize(
    "options", [{}, {"static_argnums": 0}], ids=["as is", "static"]
)
def test_circuits_are_static_arguments(options):
    traces = []

    def log_prob(circuit, params, x):
        traces.append(None)
        return circuit.log_prob(params, x)

    function = cases.jit(log_prob, **options)
    x = jnp.ones((2, 1))
    value = function(CIRCUIT, PARAMS, x)
    assert function(circuits._build.__wrapped__(CONFIG), PARAMS, x) == value
    assert len(traces) == 1
    params = {"circuit": PARAMS, "flow": {}}
    assert np.isfinite(function(PULLED, params, x / 2))
    assert len(traces) == 2


@pytest.mark.parametrize("owner", [CIRCUIT, PULLED], ids=["plain", "transformed"])
def test_a_pickle_is_the_configuration(owner):
    data = pickle.dumps(owner)
    assert len(data) < 1500
    assert pickle.loads(data) == owner
    assert copy.deepcopy(owner) == owner


def test_pickles_keep_what_was_replaced():
    other = dataclasses.replace(CIRCUIT, mean=CIRCUIT.mpe)
    assert pickle.loads(pickle.dumps(other)) == other
    log_prob = pickle.loads(pickle.dumps(CIRCUIT.log_prob))
    assert log_prob == CIRCUIT.log_prob
    flow = color_flow(1, 2, 1)
    assert pickle.loads(pickle.dumps(flow)) == flow
    assert not flow._replace(forward=flow.inverse).is_configured


@pytest.mark.parametrize(
    "owner",
    [CIRCUIT, pytest.param(PULLED, marks=pytest.mark.slow)],
    ids=["plain", "transformed"],
)
def test_one_channel_needs_no_axis(owner):
    params: Any = PARAMS if owner is CIRCUIT else {"circuit": PARAMS, "flow": {}}
    x = jnp.array([0.3, 0.6])
    mask = jnp.array([True, False])

    @cases.jit
    def answers(x):
        soft = owner.sample_differentiable
        out = [owner.log_prob(params, x, mask), owner.class_posterior(params, x, mask)]
        out.append(soft(jax.random.key(0), params, x, mask))
        if owner is CIRCUIT:
            out.append(owner.mean(params, x, mask))
        return out

    flat, full = answers(x), answers(x[:, None])
    for a, b in zip(flat, full, strict=True):
        np.testing.assert_array_equal(a, b)
    data = jnp.array([[0.1, 0.4], [0.5, 0.3]])
    starts = [owner.init(jax.random.key(0), d) for d in (data, data[..., None])]
    jax.tree.map(np.testing.assert_array_equal, *starts)


def test_counts_of_one_channel_need_no_axis():
    count = cases.jit(lambda x: pc.expected_counts(CIRCUIT, PARAMS, x))
    x = jnp.array([[0.3, 0.6], [0.1, 0.2]])
    for a, b in zip(
        *map(jax.tree.leaves, (count(x), count(x[..., None]))), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_several_channels_need_theirs():
    wide = pc.build(dataclasses.replace(CONFIG, num_channels=2))
    params = cases.random_params(wide, seed=0)
    with pytest.raises(ValueError, match=r"x must have shape \[V, C\] = \(2, 2\)"):
        wide.log_prob(params, jnp.zeros(2))
    with pytest.raises(ValueError, match="data must be given to start"):
        PULLED.init(jax.random.key(0))
