"""Circuits from networks: valid circuits, and integrals over their latents."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dspc_jax as pc
from dspc_jax.integral_circuits import integral_circuit
from tests import cases


def circuit(num_units: int, structure=None, leaf=None, **options) -> pc.Circuit:
    return pc.build(
        pc.CircuitConfig(
            structure or pc.RandomBinaryTrees(2, 1, 1, seed=0),
            leaf or pc.Bernoulli(),
            num_leaves=num_units,
            num_sums=num_units,
            **options,
        )
    )


def features(network, z):
    """The network in NumPy, ``[N, D] -> [N, H]``."""
    own = jax.tree.map(lambda a: np.asarray(a, np.float64), network["params"])
    angles = 2 * np.pi * z @ own["frequencies"]
    x = np.concatenate([np.cos(angles), np.sin(angles)], -1)
    for number in range(2):
        dense = own[f"Dense_{number}"]
        x = x @ dense["kernel"] + dense["bias"]
        x = x / (1 + np.exp(-x))
    return x


def test_many_units_are_the_integral():
    """Two binary variables given one latent, by the trapezoidal rule in NumPy."""
    coarse, fine = circuit(2), circuit(64)
    params = integral_circuit(coarse, width=8, num_frequencies=2).init(
        jax.random.key(3)
    )
    x = np.asarray([[[0], [0]], [[0], [1]], [[1], [0]], [[1], [1]]])
    values = {}
    for name, own in (("coarse", coarse), ("fine", fine)):
        network = integral_circuit(own, width=8, num_frequencies=2)

        def log_probs(params, own=own, network=network):
            weights = network.circuit_params(params)
            return jax.vmap(own.log_prob, (None, 0))(weights, x)

        values[name] = np.exp(cases.jit(log_probs)(params))
        assert values[name].sum() == pytest.approx(1, abs=1e-6)

    z = np.linspace(-1, 1, 4001)
    (leaf,), ((root,),) = params["leaves"], params["sums"]
    pairs = np.stack([np.zeros_like(z), z], -1)
    density = np.exp(features(root["features"], pairs) @ np.asarray(root["head"])[:, 0])
    density /= np.trapezoid(density, z)
    logits = np.einsum(
        "nh,hg->gn",
        features(leaf.logits["features"], z[:, None]),
        np.asarray(leaf.logits["head"]).reshape(16, 2),
    ) + np.asarray(leaf.logits["bias"]).reshape(2, 1)
    ones = 1 / (1 + np.exp(-logits))
    exact = [
        np.trapezoid(
            density * np.prod(np.where(example == 1, ones, 1 - ones), axis=0), z
        )
        for example in x
    ]
    assert values["fine"] == pytest.approx(np.asarray(exact), abs=1e-5)
    assert np.abs(values["coarse"] - exact).max() > 1e-4  # two points are too coarse


STRUCTURES = [
    (pc.QuadGraph(3, 3), {"sum_layer": "cp"}),
    (pc.RandomBinaryTrees(6, 2, 3, seed=0), {"sum_layer": "tucker", "num_classes": 3}),
]


@pytest.mark.parametrize(("structure", "options"), STRUCTURES)
def test_parameters_fit(structure, options):
    own = circuit(
        3,
        structure,
        (
            pc.Normal(),
            pc.Bernoulli(),
            *[pc.Categorical(5)] * (structure.num_variables - 2),
        ),
        **options,
    )
    network = integral_circuit(own, width=8)
    key = jax.random.key(0)
    made = jax.eval_shape(lambda key: network.circuit_params(network.init(key)), key)
    expected = jax.eval_shape(own.init, key)
    assert made == expected
    with jax.enable_x64(True):  # float32 as well
        wide = jax.eval_shape(lambda k: network.circuit_params(network.init(k)), key)
    assert wide == expected


@pytest.mark.slow
@pytest.mark.optax
@pytest.mark.parametrize(("structure", "options"), STRUCTURES)
def test_they_learn(structure, options):
    """Gradients reach all heads, those of mixtures and classes as well."""
    own = circuit(3, structure, pc.Categorical(5), **options)
    network = integral_circuit(own, width=8)
    data = np.random.default_rng(0).integers(0, 3, (32, structure.num_variables, 1))
    data[:, 1] = data[:, 0]
    params = network.init(jax.random.key(0), data)
    optimizer = optax.adam(0.02)

    @cases.jit
    def train(params):
        def loss(params):
            weights = network.circuit_params(params)
            return -jnp.mean(jax.vmap(own.log_prob, (None, 0))(weights, data))

        def step(state, _):
            params, memory = state
            value, slope = jax.value_and_grad(loss)(params)
            update, memory = optimizer.update(slope, memory)
            return (optax.apply_updates(params, update), memory), (value, slope)

        state = params, optimizer.init(params)
        (params, _), (values, slopes) = jax.lax.scan(step, state, None, 60)
        return params, values, jax.tree.map(lambda s: s[0], slopes)

    _, values, slopes = train(params)
    assert values[-1] < values[0] - 1
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        # Latents of a single point are 0: their frequencies change nothing.
        if (name := jax.tree_util.keystr(path)).endswith(("['head']", "['bias']")):
            assert np.abs(slope).max() > 0, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be"),
        ({"num_hidden": 0}, "num_hidden must be"),
        ({"num_frequencies": 1.5}, "num_frequencies must be"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        integral_circuit(circuit(2), **options)
