"""Equal weights of partitions, against the circuit that could learn them."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dspc_jax as pc
from dspc_jax import parameters
from dspc_jax.learning.counts import prior_counts
from tests import cases, oracles

_config = functools.partial(pc.CircuitConfig, mixing="uniform")
CIRCUITS = {
    # Mixtures of one, two and three partitions, two of them in one level.
    "nested": _config(cases.NESTED, pc.Categorical(3), 1, 2, 3, 2, "tucker"),
    "forest": _config(pc.RandomBinaryTrees(4, 1, 3), pc.Bernoulli(), 1, 2, 2, 2),
    "tied": _config(
        pc.PoonDomingos(2, 3, 1),
        *(pc.Bernoulli(), 1, 2, 2, 1),
        tie_leaves="all",
        tie_sums="levels",
    ),
}
some = pytest.mark.parametrize("name", cases.parameters(CIRCUITS, ("nested", "tied")))


def learned(circuit: pc.Circuit) -> pc.Circuit:
    return pc.build(dataclasses.replace(circuit.config, mixing="learned"))


def with_logits(circuit: pc.Circuit, params: Any) -> Any:
    """The same parameters, and zeros for those that the other circuit learns."""
    shapes = jax.eval_shape(learned(circuit).init, jax.random.key(0))
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes.mixtures)
    return params._replace(mixtures=zeros)


def model(name: str) -> tuple[pc.Circuit, Any, np.ndarray]:
    """A circuit, its parameters, and all values."""
    circuit = pc.build(CIRCUITS[name])
    params = cases.random_params(circuit, seed=4)
    assert jax.tree.leaves(params.mixtures) == []
    return circuit, params, oracles.all_values(circuit).astype(np.float32)


def assert_close(a: Any, b: Any) -> None:
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=3e-4, atol=3e-5)


def test_the_law_and_its_marginals_by_enumeration():
    circuit, params, x = model("nested")
    table = oracles.tabulate(learned(circuit), with_logits(circuit, params))
    masks = cases.masks(x.shape[1])
    visible = np.concatenate([np.ones(x.shape[:2], bool), masks])
    x = np.concatenate([x, x[: len(masks)]])
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0, 0)))
    wanted = [table.marginal(*pair) for pair in zip(x, visible, strict=True)]
    np.testing.assert_allclose(np.exp(log_prob(params, x, visible)), wanted, rtol=1e-4)
    np.testing.assert_allclose(table.probs.sum(), 1, rtol=1e-6)


@some
def test_queries_gradients_and_counts_are_those_of_equal_logits(name):
    """Draw for draw."""
    circuit, params, x = model(name)
    x = x[::3]
    observed = np.arange(x.shape[1]) % 2 == 0

    def queries(circuit, params, keys, x):
        def one(key, x):
            soft = circuit.sample_differentiable(key, params, relaxation="simple")
            key = jax.random.clone(key)
            drawn = circuit.sample(key, params, x, observed, sharpness=1.5)
            mode = circuit.mpe(params, x, observed)
            posterior = circuit.class_posterior(params, x)
            return posterior, circuit.mean(params, x, observed), soft, drawn, mode

        return jax.vmap(one)(keys, x)

    def loss(params, circuit, x):
        return jnp.sum(jnp.sin(jax.vmap(circuit.log_prob, (None, 0))(params, x)))

    @functools.partial(cases.jit, static_argnums=0)
    def of(circuit, params, x):
        weights = parameters.normalize(circuit.layout, params)
        keys = jax.random.split(jax.random.key(2), len(x))
        trees = (
            jax.grad(loss)(params, circuit, x),
            pc.expected_counts(circuit, params, x),
            prior_counts(circuit.layout, weights),
        )
        without = [tree._replace(mixtures=()) for tree in trees]
        return queries(circuit, params, keys, x), without

    wanted = of(learned(circuit), with_logits(circuit, params), x)
    assert_close(of(circuit, params, x), wanted)


@some
def test_em_never_falls_and_starts_have_no_logits(name):
    circuit, params, x = model(name)
    rng = np.random.default_rng(1)
    x = x[rng.choice(len(x), 40, p=rng.dirichlet(np.full(len(x), 0.3)))]
    em = pc.em(circuit)

    @cases.jit
    def step(params):
        log_p = jax.vmap(circuit.log_prob, (None, 0))(params, x)
        counts: Any = pc.expected_counts(circuit, params, x)
        change, _ = em.update(counts, optax.EmptyState(), params)
        return jnp.sum(log_p), optax.apply_updates(params, change)

    totals = []
    for _ in range(6):
        total, params = step(params)
        totals.append(float(total))
    assert (np.diff(totals) > -1e-3).all()
    assert totals[-1] > totals[0] + 1
    assert jax.tree.leaves(params.mixtures) == []


@pytest.mark.slow
def test_other_users_of_parameters():
    """Momentum with smoothing, and a start by distillation."""
    circuit = pc.build(
        _config(pc.QuadGraph(2, 2), pc.Bernoulli(), 1, 2, 2, sum_layer="cp")
    )
    x = oracles.all_values(circuit).astype(np.float32)
    params = circuit.init(jax.random.key(0), x, method="distill")
    em = pc.em(circuit, pseudocount=0.5, smooth_towards="marginal", momentum=0.5)
    em_state = em.init(params)
    counts: Any = pc.expected_counts(circuit, params, x)
    change, _ = em.update(counts, em_state, params)
    new = optax.apply_updates(params, change)
    assert jax.tree.structure(new) == jax.tree.structure(params)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(new))
    assert all(row is None for row in pc.parameter_rows(circuit).mixtures)
    wide = pc.parameter_rows(learned(circuit)).mixtures
    assert any(row is not None for row in wide)


@pytest.mark.slow
def test_types_follow_the_parameters():
    circuit, params, x = model("nested")
    short = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    log_p = cases.jit(circuit.log_prob)(short, x[0])
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p, circuit.log_prob(params, x[0]), rtol=0.05)


@pytest.mark.parametrize("version", [5, 6])
def test_files(version, tmp_path):
    """Equal weights come back; those of an older file were learned."""
    circuit, params, _ = model("nested")
    if version < 6:
        circuit, params = learned(circuit), with_logits(circuit, params)
    pc.save(tmp_path / "new.npz", circuit.config, params)
    with np.load(tmp_path / "new.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    assert header["version"] == 6
    if version < 6:
        header["version"] = version
        assert header["config"].pop("mixing") == "learned"
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "file.npz", **arrays)
    config, loaded = pc.load(tmp_path / "file.npz")
    assert config == circuit.config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_another_way_of_mixing_is_named():
    with pytest.raises(ValueError, match="mixing must be one of .* got 'equal'"):
        dataclasses.replace(CIRCUITS["forest"], mixing="equal")
