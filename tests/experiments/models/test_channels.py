"""--channels=variables: the same images, other variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from experiments.console.errors import UserError
from experiments.engine import flags_in_use
from experiments.engine.flags import Settings, defaults_of, fields_of
from experiments.models import circuit as model
from experiments.models.em import make_em
from tests import cases
from tests.experiments.models.test_colors import colored

FLAGS = {"structure": "quad_graph", "num_sums": 2, "num_leaves": 2}


@pytest.mark.slow
def test_queries_are_those_of_the_channels(key: jax.Array):
    """Images in and out; masks are of pixels."""
    dataset = colored()
    settings = Settings(**FLAGS, leaf="binomial", channels="variables")
    own = model.make_model(settings, dataset)
    config = model.circuit_config(settings, dataset)
    assert (config.num_channels, config.structure.num_variables) == (1, 12)
    circuit, x = pc.build(config), dataset.valid.astype(np.float32)
    params = model.init(own, key)["circuit"]
    observed = np.array([True, False, True, False])

    def queries(circuit, x, observed):
        def one(x, key):
            keys = jax.random.split(key, 2)
            values = [
                circuit.log_prob(params, x, observed),
                circuit.sample(keys[0], params, x=x, observed=observed),
                circuit.class_log_probs(params, x),
                circuit.class_posterior(params, x, observed),
                circuit.sample_differentiable(keys[1], params, temperature=0.5),
                circuit.mpe(params, x, observed),
                circuit.mean(params, x, observed),
            ]
            return jax.tree.map(jnp.ravel, values)

        return jax.vmap(one)(x, cases.fresh_keys(0, len(x)))

    wanted = cases.jit(lambda x: queries(circuit, x, np.repeat(observed, 3)))
    result = cases.jit(lambda x: queries(own.circuit, x, observed))
    for a, b in zip(result(x), wanted(x.reshape(16, 12, 1)), strict=True):
        np.testing.assert_array_equal(a, b)
    shape = jax.eval_shape(own.circuit.sample, key, params).shape
    assert shape == (4, 3)


@pytest.mark.slow
def test_em_learns_and_channels_have_leaves_of_their_own(key: jax.Array):
    dataset = colored()
    settings = Settings(
        **{**FLAGS, "leaf": "categorical", "colors": "ycocg", "optimizer": "em"},
        **{"sum_layer": "cp", "channels": "variables", "tie_leaves": "all"},
    )
    own = model.make_model(settings, dataset)
    x = own.codec.encode(key, jnp.asarray(dataset.train))
    params = {"circuit": own.circuit.init(key, x, method="distill")}
    assert params["circuit"].leaves[0].logits.shape[0] == 3  # a set for each channel
    em = make_em(settings, own)
    state, totals = em.init(params), []
    for _ in range(3):
        totals.append(jax.vmap(own.circuit.log_prob, (None, 0))(params["circuit"], x))
        params, state = em.step(params, state, x, None)
    assert np.mean(totals[2]) > np.mean(totals[0])


def test_images_go_in_and_come_out(key: jax.Array):
    dataset = colored()
    own = model.make_model(Settings(**FLAGS, channels="variables"), dataset)
    shapes = jax.eval_shape(own.circuit.init, key)
    sample = jax.eval_shape(own.circuit.sample, key, shapes)
    assert sample.shape == (4, 3)
    with pytest.raises(ValueError, match="shape"):
        jax.eval_shape(own.circuit.log_prob, shapes, jnp.zeros((3, 3)))


def test_only_trees_of_images_have_them():
    values = defaults_of([Settings])
    wrong = values | {"channels": "variables", "structure": "random_binary_trees"}
    with pytest.raises(UserError, match="--channels must go with --structure=quad_t"):
        flags_in_use.check(fields_of([Settings]), {}, wrong, values)
