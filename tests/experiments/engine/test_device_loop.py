"""The part of the loop on the devices: chunks, seeds, streaming, exact averages."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import pytest

from dspc_jax.learning.loop import Carry
from experiments import data
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.system import System
from tests.experiments.gaussian_program import GaussianSettings, gaussian_system

BATCH = 32


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits", None)


def make_loop(
    dataset: Dataset,
    *,
    system: System | None = None,
    seed: int = 0,
    num_seeds: int = 1,
    resident_bytes: int = 2**30,
    flip: bool = False,
    **test: Any,
) -> DeviceLoop:
    settings = flags.Settings(learning_rate=0.05)
    system = system or gaussian_system(dataset, settings, GaussianSettings(**test))
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    return DeviceLoop(
        system, dataset, seed, num_seeds, BATCH, mesh, resident_bytes, flip=flip
    )


def advance(loop: DeviceLoop, chunks: list[int]) -> Carry:
    carry, step = loop.init(), 0
    for num in chunks:
        carry, failure = loop.run(carry, step, num)
        assert failure is None
        step += num
    return carry


def assert_same_bits(one: Any, other: Any) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b, strict=True), one, other
    )


@pytest.mark.parametrize("resident_bytes", [2**30, 0])
def test_chunks_do_not_change_a_bit_and_trace_once(
    digits: Dataset, resident_bytes: int
):
    size: Any = {"num_seeds": 2, "resident_bytes": resident_bytes}
    loop = make_loop(digits, **size)
    traces = []
    original = loop._system.step
    counted = loop._system._replace(
        step=lambda *arguments: (traces.append(1), original(*arguments))[1]
    )
    loop = make_loop(digits, system=counted, **size)
    whole = advance(loop, [24])
    assert_same_bits(whole, advance(loop, [1, 7, 2, 14]))
    assert len(traces) == 1


def test_a_seed_among_others_is_its_own_run(digits: Dataset):
    together = advance(make_loop(digits, seed=3, num_seeds=3), [20])
    for place, seed in enumerate((3, 4, 5)):
        alone = advance(make_loop(digits, seed=seed), [20])
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a[0], b[place], rtol=2e-4, atol=2e-5)
    # Negative control: the seeds differ from each other.
    means = np.asarray(together.state.params["mean"])
    assert np.abs(means[0] - means[1]).max() > 0.05


def test_data_on_the_host_give_the_same_bits(digits: Dataset):
    resident = advance(make_loop(digits, num_seeds=2), [10, 10])
    streamed = advance(make_loop(digits, num_seeds=2, resident_bytes=0), [7, 13])
    assert_same_bits(resident, streamed)


def seen(dataset: Dataset, chunks: list[int], *, draw: bool = False, **how: Any):
    """What reaches the program at every step: batches, or those it draws itself."""
    shape = (sum(chunks), BATCH, *dataset.train.shape[1:])

    def step(state, key, batch, number, draw_batch):
        batch = draw_batch(key) if draw else batch
        return {"seen": state["seen"].at[number].set(batch)}, {"x": jnp.float32(0)}

    system = System(
        init=lambda key: {"seen": jnp.zeros(shape, jnp.uint8)},
        step=step,
        evaluate=lambda state, key, batch: {},
        sample=lambda state, key, num: {},
    )
    return np.asarray(
        advance(make_loop(dataset, system=system, **how), chunks).state["seen"]
    )


def mirror_images(digits: Dataset, images: np.ndarray) -> np.ndarray:
    rows = images.reshape(-1, digits.height, digits.width, 1)
    return rows[:, :, ::-1].reshape(images.shape)


def test_flips_mirror_half_of_the_images(digits: Dataset):
    plain = seen(digits, [6], num_seeds=2)
    flipped = seen(digits, [6], num_seeds=2, flip=True)
    same = (flipped == plain).all((-2, -1))
    mirrored = (flipped == mirror_images(digits, plain)).all((-2, -1))
    assert (same | mirrored).all()
    assert abs((~same).mean() - 0.5) < 4 * 0.5 / same.size**0.5
    patterns = {pattern.tobytes() for pattern in same.reshape(-1, BATCH)}
    assert len(patterns) == 12  # no two steps or seeds alike
    # Of (seed, step) alone: not of chunks, the place of the data, or seeds beside.
    pieces = seen(digits, [1, 3, 2], num_seeds=2, flip=True, resident_bytes=0)
    np.testing.assert_array_equal(flipped, pieces)
    alone = seen(digits, [6], seed=1, flip=True)
    np.testing.assert_array_equal(flipped[1:], alone)


def test_inner_batches_are_flipped_too(digits: Dataset):
    drawn = seen(digits, [6], draw=True, flip=True).reshape(-1, 64)
    train = {image.tobytes() for image in digits.train}
    same = np.array([image.tobytes() in train for image in drawn])
    mirrored = mirror_images(digits, drawn)
    assert all(image.tobytes() in train for image in mirrored[~same])
    assert 0.3 < same.mean() < 0.7
    assert np.array_equal(
        seen(digits, [2, 4], draw=True, flip=True)[0, 5], drawn[-32:].reshape(32, 64, 1)
    )


def test_inner_batches_need_resident_data(digits: Dataset):
    advance(make_loop(digits, draw=1), [2])
    with pytest.raises(UserError, match="must fit on a device"):
        advance(make_loop(digits, draw=1, resident_bytes=0), [2])


def test_the_failing_step_is_named_and_nothing_after_it_runs(digits: Dataset):
    loop = make_loop(digits, seed=7, num_seeds=2, nan_at_step=9, nan_seed=8)
    carry, failure = loop.run(loop.init(), 0, 5)
    assert failure is None
    carry, failure = loop.run(carry, 5, 20)
    assert failure is not None
    assert (failure.step, failure.seed, failure.metric) == (9, 8, "loss")
    assert np.isnan(failure.value)
    assert np.asarray(carry.num_steps).tolist() == [9, 9]


def test_a_broken_state_is_seen(digits: Dataset):
    loop = make_loop(digits, seed=2, num_seeds=2)
    carry = loop.init()
    assert loop.seeds_with_nan(carry) == []
    mean = np.array(carry.state.params["mean"])
    mean[1, 3, 0] = np.nan
    state = carry.state._replace(params=carry.state.params | {"mean": mean})
    assert loop.seeds_with_nan(loop.put(carry._replace(state=state))) == [3]


def test_drain_takes_the_mean_of_a_window(digits: Dataset):
    loop = make_loop(digits, num_seeds=2)
    carry = advance(loop, [4, 2])
    carry, means = loop.drain(carry)
    np.testing.assert_array_equal(means["step_again"], [3.5, 3.5])
    carry, _ = loop.run(carry, 6, 3)
    _, means = loop.drain(carry)
    np.testing.assert_array_equal(means["step_again"], [8.0, 8.0])


@pytest.mark.parametrize("num", [179, 256, 600])
def test_evaluation_counts_every_example_once(digits: Dataset, num: int):
    """Per-example metrics average all examples; set metrics average full batches."""
    big = digits._replace(valid=digits.train[:num], test=digits.train[:num])

    def evaluate(state, key, batch):
        del state, key
        values = batch.astype(jnp.float32).sum((1, 2))
        return {"each": values, "set": values.mean(), "size": jnp.float32(len(batch))}

    base = make_loop(big)._system
    loop = make_loop(big, system=base._replace(evaluate=evaluate), num_seeds=2)
    metrics = loop.evaluate(loop.init().state, big.valid)
    totals = big.valid.astype(np.float64).sum((1, 2))
    size = min(num, 256)
    np.testing.assert_allclose(metrics["each"], [totals.mean()] * 2, rtol=1e-6)
    np.testing.assert_allclose(
        metrics["set"], [totals[: num // size * size].mean()] * 2, rtol=1e-6
    )
    np.testing.assert_array_equal(metrics["size"], [size, size])


def test_evaluation_and_samples_repeat(digits: Dataset):
    loop = make_loop(digits, num_seeds=2)
    carry = advance(loop, [3])
    assert_same_bits(
        loop.evaluate(carry.state, digits.valid),
        loop.evaluate(carry.state, digits.valid),
    )
    samples = loop.sample(carry.state, 5)
    assert samples["sampled"].shape == (5, 64, 1)
    assert samples["sampled"].dtype == np.uint8
    assert_same_bits(samples, loop.sample(carry.state, 5))
