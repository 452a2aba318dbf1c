"""Data that are impossible under their leaves are named before they cost a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc

LEAVES = (pc.Normal(), pc.Categorical(3), pc.Binomial(5), pc.DiscretizedLogistic(9))
CIRCUIT = pc.build(pc.CircuitConfig(pc.RandomBinaryTrees(4, 1, 1), LEAVES))
X = np.array([[-3.5, 2, 5, 8], [1e6, 0, 0, 0], [0, 1, 2, 3]], np.float32)


def test_possible_values_pass():
    """As ``log_prob`` has it: what passes is finite, what does not is -inf."""
    params = CIRCUIT.init(jax.random.key(0), X)
    log_prob = jax.jit(jax.vmap(CIRCUIT.log_prob, (None, 0)))
    pc.check(CIRCUIT, X)
    assert np.isfinite(log_prob(params, X)).all()
    for column, value in ((1, 3), (1, -1), (1, 0.5), (2, 6), (3, 9), (3, 2.5)):
        wrong = X.copy()
        wrong[1, column] = value
        assert np.isneginf(log_prob(params, wrong)[1])
        with pytest.raises(ValueError, match=f"variable {column}, got {value:g} in ro"):
            pc.check(CIRCUIT, wrong)
        observed = np.ones(X.shape, bool)
        observed[1, column] = False
        pc.check(CIRCUIT, wrong, observed)


def test_the_message_names_everything():
    wrong = X.copy()
    wrong[1:, 2] = 7
    message = (
        "x must have whole numbers from 0 to 5 in variable 2, got 7 in row 1 "
        r"\(2 of 3 rows are impossible\)"
    )
    with pytest.raises(ValueError, match=message):
        pc.check(CIRCUIT, wrong)
    with pytest.raises(ValueError, match=r"x must have shape \[N, V, C\]"):
        pc.check(CIRCUIT, X[:, :3])
    jax.jit(lambda x: (pc.check(CIRCUIT, x), x)[1])(jnp.asarray(wrong))


def test_params_are_counted():
    circuit = pc.build(pc.CircuitConfig(pc.QuadTree(1, 2), pc.Bernoulli(), 1, 3, 2))
    # Two leaves of 3 units; the root's weights on 3 products (cp_t), and its class.
    assert pc.count_params(circuit.init(jax.random.key(0))) == 2 * 3 + 3 + 1


def test_the_package_shows_its_public_names():
    assert set(dir(pc)) == {*pc.__all__, "__version__"}
    assert pc.__version__
