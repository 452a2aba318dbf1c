"""Training as one function: what it computes, where it ends, what it refuses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dspc_jax as pc
from tests import cases

pytestmark = pytest.mark.optax
CIRCUIT = pc.build(
    pc.CircuitConfig(pc.RandomBinaryTrees(4, 1, 2), pc.Bernoulli(), 1, 2, 2)
)
ADAM = optax.adam(0.05)


@functools.cache
def rows(num: int = 40) -> np.ndarray:
    """Four binary columns, of which the first two are equal."""
    x = np.random.default_rng(0).integers(0, 2, (num, 4, 1)).astype(np.float32)
    x[:, 1] = x[:, 0]
    return x


@functools.cache
def start():
    return CIRCUIT.init(jax.random.key(0), rows())


def mean_log_prob(params, x, observed=None):
    axes = (None, 0, None if observed is None else 0)
    return cases.jit(jax.vmap(CIRCUIT.log_prob, axes))(params, x, observed).mean()


def fit(data: Any = None, **options: Any) -> Any:
    options = {"key": jax.random.key(1), "num_steps": 6, "batch_size": 8} | options
    return pc.fit(CIRCUIT, start(), rows() if data is None else data, **options)


def test_full_batches_of_em_are_steps_of_em():
    em = pc.em(CIRCUIT, pseudocount=1.0)
    observed = np.random.default_rng(1).random((40, 4)) < 0.7
    options = {"optimizer": em, "num_steps": 3, "batch_size": 40}
    params, history = fit(observed=observed, eval_every=1, **options)
    wanted = start()
    for step in range(3):
        loss = -mean_log_prob(wanted, rows(), observed)
        np.testing.assert_allclose(history.train["loss"][step], loss, rtol=1e-5)
        counts: Any = pc.expected_counts(CIRCUIT, wanted, rows(), observed)
        change, _ = em.update(counts, optax.EmptyState(), wanted)
        wanted = optax.apply_updates(wanted, change)
    law = cases.jit(jax.vmap(CIRCUIT.log_prob, (None, 0)))
    every = np.indices((2, 2, 2, 2)).reshape(4, 16).T.astype(np.float32)
    laws = (np.exp(law(p, every)) for p in (params, wanted))
    np.testing.assert_allclose(*laws, atol=1e-6)
    assert history.step.tolist() == [1, 2, 3]
    assert np.isnan(history.valid).all()


def test_the_same_call_gives_the_same_parameters_and_the_start_stays():
    before = jax.tree.map(np.asarray, start())
    (first, history), (again, _), (other, _) = (
        fit(optimizer=ADAM, key=jax.random.key(seed)) for seed in (1, 1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.sums[0][0], other.sums[0][0])
    jax.tree.map(np.testing.assert_array_equal, before, start())
    assert mean_log_prob(first, rows()) > mean_log_prob(start(), rows())
    assert history.step.tolist() == [5, 6]  # an epoch, and the rest


def test_values_that_are_not_observed_may_be_nan():
    observed = np.random.default_rng(1).random((40, 4)) < 0.7
    broken = np.where(observed[..., None], rows(), np.nan)
    params, _ = fit(broken, observed=observed, optimizer=ADAM)
    filled, _ = fit(observed=observed, optimizer=ADAM)
    jax.tree.map(np.testing.assert_array_equal, params, filled)


def test_the_best_parameters_on_validation_are_returned():
    """Steps that are far too large make it worse: the start is the best."""
    valid = rows()[:9]
    params, history = fit(optimizer=optax.sgd(-1.0), valid=valid, patience=1)
    assert history.best_step == 0
    assert history.step.tolist() == [5]
    jax.tree.map(np.testing.assert_array_equal, params, start())
    params, history = fit(optimizer=ADAM, valid=valid, eval_every=2)
    place = int(history.valid.argmin())
    assert history.best_step == history.step[place]
    loss = -mean_log_prob(params, valid)
    np.testing.assert_allclose(history.valid[place], loss, rtol=1e-5)


def test_a_loss_on_samples_trains_by_their_gradient():
    """The mean of samples moves to the data's, and the objective's metrics are kept."""
    sample = pc.sampler(CIRCUIT, relaxation="simple")

    def objective(params, key, batch):
        drawn = sample(jax.random.split(key, 32), params)
        gap = jnp.mean(drawn, axis=0) - jnp.mean(batch, axis=0)
        return jnp.sum(gap**2), {"gap": jnp.max(jnp.abs(gap))}

    ones = np.ones_like(rows())
    options = {"objective": objective, "optimizer": optax.adam(0.1)}
    params, history = fit(ones, num_steps=60, eval_every=30, valid=ones, **options)
    assert history.train["gap"][-1] < history.train["gap"][0]
    assert history.valid[-1] < history.valid[0]
    before, after = (mean_log_prob(p, ones) for p in (start(), params))
    assert after > before + 0.5


def test_a_callback_sees_every_entry_and_ends_the_training():
    seen = []

    def callback(step, params, metrics):
        seen.append((step, sorted(metrics), float(mean_log_prob(params, rows()))))
        return step == 4

    _, history = fit(optimizer=ADAM, eval_every=2, valid=rows()[:9], callback=callback)
    assert [step for step, *_ in seen] == [2, 4] == history.step.tolist()
    assert seen[0][1] == ["loss", "valid_loss"]
    assert seen[0][2] != seen[1][2]


def test_a_second_call_compiles_nothing():
    fit(optimizer=ADAM)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled: list[Any] = []
        patch.setattr(
            "jax._src.interpreters.pxla.logger.log",
            lambda *words: compiled.append(words),
        )
        fit(optimizer=ADAM, key=jax.random.key(5))
    names = [str(words) for words in compiled]
    assert not [name for name in names if "_run" in name and "Compiling" in name]


def test_a_circuit_behind_a_flow_is_fitted():
    from dspc_jax.flows import ladder

    circuit = pc.transform(
        pc.build(pc.CircuitConfig(pc.QuadTree(1, 2), pc.Normal(), 1, 2, 2)),
        ladder.identity_flow(1, 2),
    )
    x = np.random.default_rng(0).normal(size=(20, 2, 1)).astype(np.float32)
    params = circuit.init(jax.random.key(0), x)
    options: Any = {"key": jax.random.key(1), "num_steps": 20, "eval_every": 10}
    _, history = pc.fit(circuit, params, x, **options)
    assert history.train["loss"][1] < history.train["loss"][0]


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    def objective(params, key, batch):
        del key, batch
        return jnp.log(-jnp.sum(params.classes) - 1), {}

    with pytest.raises(FloatingPointError, match="loss must stay finite, got nan in"):
        fit(objective=objective, optimizer=ADAM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"data": rows() + 2},
            "data must have whole numbers from 0 to 1 in var",
        ),
        ({"data": rows()[:0]}, "data must hold at least one example"),
        ({"data": rows() * np.nan}, "data must not be NaN where it is observed"),
        ({"valid": rows() / 2}, "valid must have whole numbers from 0 to 1"),
        ({"key": 3}, "key must be one typed key"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"eval_every": 0}, "eval_every must be at least 1, got 0"),
        ({"num_steps": 1.5}, "num_steps must be a whole number, got 1.5"),
        ({"patience": 3}, "valid must be given with patience, got None"),
        (
            {"optimizer": pc.em(CIRCUIT), "objective": lambda *_: (0.0, {})},
            "optimizer must be another than em with an objective",
        ),
        (
            {"observed": np.ones((40, 4), bool), "objective": lambda *_: (0.0, {})},
            "observed must be None with an objective, got a mask",
        ),
    ],
)
def test_a_mistake_is_one_line(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(**options)
    with pytest.raises(ValueError, match="^circuit must be a Circuit, got 3"):
        pc.fit(3, start(), rows(), key=jax.random.key(0))
