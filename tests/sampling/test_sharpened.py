"""Circuits with the weights of all sums to a power, against NumPy's powers."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dspc_jax as pc
from dspc_jax.flows.ladder import identity_flow
from dspc_jax.layers import mixing_layer
from dspc_jax.parameters import normalize
from dspc_jax.structure.sums_first import sums_first
from tests import cases, oracles

# Thresholds as in `tests.sampling.test_downward`.
ALPHA, CERTAIN = 1e-4, 1e-9
NUM_SAMPLES = 8000

CONFIGS = {
    "tucker": cases.DISCRETE["trees-tucker"],
    "cp_t": cases.DISCRETE["odd-trees-cp"],
    # As "cp" does with the same graph, for the oracle knows no sums of its own.
    "cp": pc.CircuitConfig(
        sums_first(cases.SHARED), pc.Categorical(2), 1, 2, 3, 2, sum_layer="cp_t"
    ),
}
kinds = pytest.mark.parametrize(
    "kind",
    ["tucker", "cp", pytest.param("cp_t", marks=pytest.mark.slow)],
)


def powers(circuit: pc.Circuit, params: Any, power: float) -> Any:
    """Normalized weights to a power, normalized again; a tree like the parameters."""

    def of_sum(logits, axes, exists: Any = True):
        logits = np.where(exists, np.asarray(logits, np.float64), -np.inf)
        weights = special.softmax(logits, axis=axes)
        # The greatest is 1, or great powers would all be 0.
        sharp = (weights / weights.max(axis=axes, keepdims=True)) ** power
        sharp = sharp * (weights > 0)  # 0 to the power 0 is not 1 here
        return sharp / sharp.sum(axis=axes, keepdims=True)

    return params._replace(
        sums=jax.tree.map(lambda a: of_sum(a, tuple(range(2, a.ndim))), params.sums),
        mixtures=tuple(
            None
            if level.mixture is None
            else of_sum(logits, -1, mixing_layer.exists(level.mixture))
            for level, logits in zip(
                circuit.layout.graph.levels, params.mixtures, strict=True
            )
        ),
        classes=of_sum(params.classes, 0),
    )


def table(circuit: pc.Circuit, params: Any, power: float) -> oracles.Table:
    """The law of the powers, by enumeration."""
    with np.errstate(divide="ignore"):
        logs = jax.tree.map(np.log, powers(circuit, params, power)._replace(leaves=()))
    return oracles.tabulate(circuit, logs._replace(leaves=params.leaves))


def weights_of(circuit: pc.Circuit, params: Any) -> Any:
    return normalize(circuit.layout, params)._replace(leaves=())


@pytest.mark.parametrize("zeros", [0.0, 0.4])
def test_weights_are_powers(zeros):
    """At all sums, with padding that is greater than what there is; 0 stays 0."""
    circuit = pc.build(cases.DISCRETE["nested"])
    params = cases.random_params(circuit, seed=2)
    if zeros:
        params = cases.with_zeros(circuit, params, 3, zeros)
    params = params._replace(
        mixtures=tuple(
            None
            if level.mixture is None
            else jnp.where(mixing_layer.exists(level.mixture), logits - 50.0, 0.0)
            for level, logits in zip(
                circuit.layout.graph.levels, params.mixtures, strict=True
            )
        )
    )
    assert any(
        level.mixture is not None and (level.mixture < 0).any()
        for level in circuit.layout.graph.levels
    )

    @cases.jit
    def sharp(power):
        return weights_of(circuit, pc.sharpened(circuit, params, power))

    for power in (0.0, 0.3, 1.0, 2.5, 1e4, 1e38, math.inf):
        result = jax.tree.leaves(sharp(jnp.float32(power)))
        right = jax.tree.leaves(powers(circuit, params, power)._replace(leaves=()))
        for a, b in zip(result, right, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
            np.testing.assert_array_equal(a[b == 0], 0)


def test_equal_weights_share_the_limit():
    """With the sharpness inf, as their powers do; so does what is possible with 0."""
    circuit = pc.build(
        pc.CircuitConfig(pc.QuadTree(1, 2), pc.Bernoulli(), 1, 1, 1, num_classes=4)
    )
    params = cases.random_params(circuit, seed=0)
    params = params._replace(classes=jnp.array([1.0, 1.0, 0.5, -jnp.inf]))
    for power, expected in ((math.inf, [1, 1, 0, 0]), (0, [1, 1, 1, 0])):
        sharp = pc.sharpened(circuit, params, power)
        weights = jax.nn.softmax(sharp.classes)
        np.testing.assert_allclose(weights, np.array(expected) / sum(expected))


@pytest.mark.parametrize("kind", cases.parameters(["tucker", "cp"], ["tucker"]))
def test_every_query_is_that_of_the_powers(kind):
    """Likelihoods, and samples with evidence and without; one trace for all powers."""
    circuit = pc.build(CONFIGS[kind])
    params = jax.tree.map(lambda a: 3 * a, cases.random_params(circuit, seed=1))
    plain = oracles.tabulate(circuit, params)
    x = plain.values[-1]
    observed = np.arange(len(x)) < 1
    traces, rejected = [], []

    @cases.jit
    def queries(keys, power):
        traces.append(None)

        def draw(key, *given):
            return circuit.sample(key, params, *given, sharpness=power)

        log_prob = jax.vmap(circuit.log_prob, (None, 0))
        sharp = pc.sharpened(circuit, params, power)
        given = jnp.where(observed[:, None], jnp.asarray(x, jnp.float32), jnp.nan)
        return (
            log_prob(sharp, jnp.asarray(plain.values, jnp.float32)),
            jax.vmap(draw)(keys[0]),
            jax.vmap(draw, (0, None, None))(keys[1], given, observed),
        )

    for power in (0.25, 3.0):
        law = table(circuit, params, power)
        keys = cases.fresh_keys(0, 2 * NUM_SAMPLES).reshape(2, NUM_SAMPLES)
        log_probs, samples, completions = queries(keys, jnp.float32(power))
        np.testing.assert_allclose(np.exp(log_probs), law.probs, rtol=1e-4)
        assert oracles.law_p_value(law, samples, law.probs) > ALPHA
        conditional = law.conditional(x, observed)
        assert oracles.law_p_value(law, completions, conditional) > ALPHA
        # The negative control: the plain circuit.
        wrong = plain.conditional(x, observed)
        rejected.append(
            (
                oracles.law_p_value(law, samples, plain.probs),
                oracles.law_p_value(law, completions, wrong),
            )
        )
    assert (np.min(rejected, axis=0) < CERTAIN).all()
    assert len(traces) == 1


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_the_power_1_changes_no_bit(dtype):
    """Traced or not, parameters and samples; types stay."""
    case = cases.case("trees-tucker")
    circuit = case.circuit
    params = jax.tree.map(lambda a: a.astype(dtype), case.params)
    sharpen = cases.jit(pc.sharpened, static_argnums=0)
    for sharp in (
        pc.sharpened(circuit, params, 1),
        sharpen(circuit, params, jnp.float32(1)),
    ):
        for a, b in zip(jax.tree.leaves(sharp), jax.tree.leaves(params), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)

    @cases.jit
    @jax.vmap
    def draw(key, power):
        return (
            circuit.sample(jax.random.clone(key), params),
            circuit.sample(key, params, sharpness=power),
        )

    plain, sharp = draw(cases.fresh_keys(0, 200), jnp.ones(200))
    np.testing.assert_array_equal(plain, sharp)


def test_gradients_are_those_of_the_table():
    """In the sharpness, by differences; finite at the limits and at weights of 0."""
    circuit = pc.build(CONFIGS["tucker"])
    params = cases.with_zeros(circuit, cases.random_params(circuit, seed=4), 5, 0.3)
    laws = [table(circuit, params, power) for power in (1 - 1e-5, 1 + 1e-5)]
    slopes = (np.log(laws[1].probs) - np.log(laws[0].probs)) / 2e-5

    @cases.jit
    def gradients(power):
        def total(params, power, x):
            return circuit.log_prob(pc.sharpened(circuit, params, power), x)

        gradient = jax.vmap(jax.grad(total, (0, 1)), (None, None, 0))
        return gradient(params, power, jnp.asarray(laws[0].values, jnp.float32))

    np.testing.assert_allclose(gradients(jnp.float32(1))[1], slopes, rtol=2e-3)
    for power in (0.0, 1.0, 1e30, math.inf):
        for gradient in jax.tree.leaves(gradients(jnp.float32(power))):
            assert np.isfinite(gradient).all()


def test_one_class_stays_one_class():
    case = cases.case("odd-trees-cp")
    sharp = pc.sharpened(case.circuit, pc.given_class(case.params, 2), 0.1)
    np.testing.assert_array_equal(sharp.classes, [-np.inf, -np.inf, 0])


@pytest.mark.slow
def test_circuits_behind_flows():
    """Samples are those of the sharpened circuit, through the flow."""
    config = pc.CircuitConfig(pc.QuadTree(1, 2), pc.Normal(), 1, 3, 3)
    behind = pc.transform(pc.build(config), identity_flow(1, 2))
    x = cases.normal(0, 20, 2, 1)
    params = behind.init(jax.random.key(0), x)
    params = params | {"circuit": cases.random_params(behind.circuit, seed=1)}
    own = pc.sharpened(behind.circuit, params["circuit"], 5.0)

    @cases.jit
    @jax.vmap
    def draw(key):
        return (
            behind.sample(jax.random.clone(key), params, sharpness=5.0),
            behind.sample(jax.random.clone(key), params | {"circuit": own}),
            behind.sample(key, params),
        )

    sharp, same, plain = draw(cases.fresh_keys(0, 50))
    np.testing.assert_array_equal(sharp, same)
    assert (sharp != plain).any()


BAD = {
    "-0.5": (-0.5, "sharpness must not be negative, got -0.5"),
    "nan": (math.nan, "sharpness must be a finite number, got nan"),
    "text": ("2", "sharpness must be a finite number, got '2'"),
    "many": (np.ones(2), r"sharpness must be a scalar .*got shape \(2,\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_sharpness_is_named(name):
    case = cases.case("trees-tucker")
    value, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        pc.sharpened(case.circuit, case.params, value)
    with pytest.raises(ValueError, match=message):
        case.circuit.sample(jax.random.key(0), case.params, sharpness=value)


def test_parameters_of_another_circuit_are_named():
    other = cases.case("channels").params
    with pytest.raises(ValueError, match="another circuit"):
        pc.sharpened(cases.case("trees-tucker").circuit, other, 2.0)
