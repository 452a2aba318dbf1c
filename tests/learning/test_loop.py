"""The compiled loop on a quadratic: no circuit, no program, nothing but arrays."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.learning.loop import Carry, gather, over_runs, run_steps, start

DATA = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
ROWS = np.random.default_rng(1).integers(0, 40, (12, 8)).astype(np.int32)
KEYS = range(5, 8)


def step(state, key, rows, number):
    """A step towards the mean of noisy examples, smaller with every step."""
    noise = 0.1 * jax.random.normal(key, (8, 3))
    batch = gather(jnp.asarray(DATA), rows) + noise

    def loss_fn(mean):
        return jnp.mean((mean[None] - batch) ** 2)

    loss, gradient = jax.value_and_grad(loss_fn)(state["mean"])
    rate = 1.0 / (1.0 + number.astype(jnp.float32))
    state = {"mean": state["mean"] - rate * gradient, "seen": state["seen"] + 1}
    return state, {"loss": loss, "number": number.astype(jnp.float32)}


def first_state():
    return {"mean": jnp.zeros(3), "seen": jnp.int32(0)}


def run_of(step):
    return jax.jit(functools.partial(run_steps, step))


def chunks(run, sizes):
    """Steps in chunks of these sizes, each with the rows from its first step on."""
    carry, last, done = start(step, first_state(), one_key(), ROWS[0]), None, 0
    for size in sizes:
        rest = np.roll(ROWS, -done, axis=0)  # of one shape, whatever the chunk
        carry, last = run(carry, one_key(), rest, done, size)
        done += size
    return carry, last


def one_key():
    return jax.random.key(5)


def three_keys():
    return jax.vmap(jax.random.key)(jnp.array(KEYS, jnp.uint32))


def three_states():
    return jax.vmap(lambda _: first_state())(jnp.zeros(3))


def test_the_steps_are_those_of_a_plain_loop():
    carry = start(step, first_state(), one_key(), ROWS[0])
    carry, last = run_of(step)(carry, one_key(), ROWS, 0, 12)
    state, losses = first_state(), []
    for number, rows in enumerate(ROWS):
        key = jax.random.fold_in(one_key(), number)
        state, metrics = jax.jit(step)(state, key, rows, jnp.int32(number))
        losses.append(metrics["loss"])
    chex.assert_trees_all_close(carry.state, state, rtol=1e-6)
    np.testing.assert_allclose(carry.sums["loss"], np.sum(losses), rtol=1e-6)
    assert carry.sums["number"] == sum(range(12))
    assert (carry.num_steps, carry.state["seen"], last.num_done) == (12, 12, 12)
    np.testing.assert_allclose(last.metrics["loss"], losses[-1], rtol=1e-6)
    assert last.finite
    # Negative control: the key and the number matter.
    other, _ = run_of(step)(
        start(step, first_state(), one_key(), ROWS[0]), one_key(), ROWS, 1, 12
    )
    assert np.abs(other.state["mean"] - state["mean"]).max() > 1e-3


def test_any_number_of_steps_is_one_trace_and_the_same_bits():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(*arguments):
        return run_steps(step, *arguments)

    whole, _ = chunks(run, [12])
    for sizes in ([1] * 12, [5, 7], [0, 3, 0, 9]):
        pieces, _ = chunks(run, sizes)
        chex.assert_trees_all_equal(pieces, whole)


def test_runs_together_are_each_alone():
    rows = np.stack([ROWS, ROWS[::-1], ROWS[:, ::-1]], axis=1)
    carry = start(step, three_states(), three_keys(), rows[0])
    chex.assert_shape([*carry.sums.values(), carry.num_steps], (3,))
    together, last = run_of(step)(carry, three_keys(), rows, 0, 12)
    chex.assert_shape([*last.metrics.values(), last.finite], (3,))
    chex.assert_tree_all_finite(together)
    for place, seed in enumerate(KEYS):
        carry = start(step, first_state(), jax.random.key(seed), rows[0, place])
        alone, _ = run_of(step)(carry, jax.random.key(seed), rows[:, place], 0, 12)
        chex.assert_trees_all_close(gather(together, place), alone, rtol=1e-6)
    assert np.ptp(together.sums["loss"]) > 1e-3  # and they are not all the same


def test_a_single_run_with_an_axis_has_the_bits_of_one_without():
    keys = jax.vmap(jax.random.key)(jnp.array([5], jnp.uint32))
    states = jax.tree.map(lambda array: array[None], first_state())
    carry = start(step, states, keys, ROWS[0][None])
    with_axis, _ = run_of(step)(carry, keys, ROWS[:, None], 0, 12)
    carry = start(step, first_state(), one_key(), ROWS[0])
    without, _ = run_of(step)(carry, one_key(), ROWS, 0, 12)
    chex.assert_trees_all_equal(gather(with_axis, 0), without)


def test_batches_may_be_given_or_none_at_all():
    def on_batch(state, key, batch, number):
        return state + jnp.sum(batch["x"]) + batch["bias"], {"number": number}

    batches = {"x": jnp.asarray(DATA[:6]), "bias": jnp.arange(6.0)}
    carry = start(on_batch, jnp.float32(0), one_key(), gather(batches, 0))
    carry, _ = run_of(on_batch)(carry, one_key(), batches, 0, 6)
    np.testing.assert_allclose(carry.state, DATA[:6].sum() + 15, rtol=1e-5)
    assert carry.sums["number"].dtype == jnp.float32

    def on_nothing(state, key, batch, number):
        assert batch == ()
        return state + jax.random.normal(key), {}

    carry = start(on_nothing, jnp.float32(0), one_key(), ())
    carry, last = run_of(on_nothing)(carry, one_key(), (), 0, 1000)
    assert last.num_done == 1000
    assert abs(carry.state) < 4 * 1000**0.5


def test_no_more_steps_than_batches():
    carry = start(step, first_state(), one_key(), ROWS[0])
    _, last = run_of(step)(carry, one_key(), ROWS, 0, 100)
    assert last.num_done == 12


def test_no_steps_change_nothing():
    carry = start(step, first_state(), one_key(), ROWS[0])
    after, last = run_of(step)(carry, one_key(), ROWS, 0, 0)
    chex.assert_trees_all_equal(after, carry)
    assert (last.num_done, last.finite, last.metrics["loss"]) == (0, True, 0)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_nothing_runs_after_the_failing_step(value: float):
    """The second of three runs fails at step 4: the carry is the one after step 4."""

    def failing(state, key, rows, number):
        after, metrics = step(state, key, rows, number)
        bad = (number == 4) & (state["run"] == 1)
        metrics |= {"extra": jnp.where(bad, value, 1.0)}
        return {**after, "run": state["run"]}, metrics

    rows = np.stack([ROWS] * 3, axis=1)
    states = {**three_states(), "run": jnp.arange(3)}
    carry = start(failing, states, three_keys(), rows[0])
    carry, last = run_of(failing)(carry, three_keys(), rows, 0, 12)
    assert last.num_done == 5
    np.testing.assert_array_equal(last.finite, [True, False, True])
    np.testing.assert_array_equal(last.metrics["extra"], [1, value, 1])
    np.testing.assert_array_equal(carry.sums["extra"], [5, value, 5])
    for count in (carry.num_steps, carry.state["seen"]):
        np.testing.assert_array_equal(count, [5, 5, 5])
    chex.assert_tree_all_finite(carry.state)
    # The call afterwards goes on: whether to stop is for the caller to say.
    _, last = run_of(failing)(carry, three_keys(), rows, 5, 2)
    assert last.num_done == 2
    assert last.finite.all()


def test_over_runs_maps_all_arguments_but_the_shared():
    def function(a, b):
        return {"sum": jnp.sum(a) + b, "one": jnp.ones(())}

    for num in (1, 3):
        a = jnp.arange(2.0 * num).reshape(num, 2)
        result = over_runs(function, num, (0, None))(a, jnp.float32(1))
        np.testing.assert_array_equal(result["sum"], a.sum(1) + 1)
        chex.assert_shape(result["one"], (num,))


def test_bad_keys_metrics_and_batches_are_refused():
    raw = jnp.zeros((3, 2), jnp.uint32)
    grid = jax.random.split(one_key(), (2, 2))
    for key in (raw, grid, 0):
        with pytest.raises(ValueError, match="^key must be one typed key, .*, got "):
            start(step, first_state(), key, ROWS[0])
    with pytest.raises(
        ValueError, match=r"^metrics must be scalars, got 'a' of the shape \(2,\)$"
    ):
        start(lambda *_: (0, {"a": jnp.ones(2)}), 0, one_key(), ())
    carry = Carry(first_state(), {}, jnp.int32(0))
    with pytest.raises(
        ValueError, match=r"^batches must have one leading axis, got the sizes \[2, 3\]"
    ):
        run_steps(step, carry, one_key(), (jnp.zeros(2), jnp.zeros(3)), 0, 1)


FOUR_DEVICES = """
import json, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tests.learning.test_loop import DATA, ROWS, first_state, one_key
from dspc_jax.learning.loop import gather, run_steps, start

mesh = Mesh(np.array(jax.devices()), ("batch",))
split, everywhere = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())

def step(state, key, rows, number):
    batch = gather(jnp.asarray(DATA), rows, split)
    loss, gradient = jax.value_and_grad(
        lambda mean: jnp.mean((mean - batch) ** 2))(state["mean"])
    return {**state, "mean": state["mean"] - 0.3 * gradient}, {"loss": loss}

carry = jax.jit(lambda: start(step, first_state(), one_key(), ROWS[0]),
                out_shardings=everywhere)()
run = jax.jit(lambda *args: run_steps(step, *args), out_shardings=everywhere)
rows = jax.device_put(ROWS, NamedSharding(mesh, P(None, "batch")))
text = run.lower(carry, one_key(), rows, 0, 12).compile().as_text()
carry, last = run(carry, one_key(), rows, 0, 12)
print(json.dumps([len(jax.devices()), carry.state["mean"].tolist(),
                  "all-reduce" in text, "all-gather" in text]))
"""


def test_a_batch_over_four_devices_trains_the_model_of_one():
    environment = os.environ | {
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    words = [sys.executable, "-c", FOUR_DEVICES]
    out = subprocess.run(words, env=environment, capture_output=True, check=True)
    num_devices, mean, reduces, gathers = json.loads(out.stdout)
    assert num_devices == 4
    assert reduces  # the batch was split
    assert not gathers  # and never put together again
    expected = np.zeros(3, np.float32)
    for rows in ROWS:
        expected -= 0.3 * 2 / (8 * 3) * (expected - DATA[rows]).sum(0)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
