"""A program for the tests of the loop: an independent Gaussian a pixel, by Adam.

It needs no circuit, compiles in a second, uses the key of every step, and can be told
to fail or to die: ``python tests/experiments/gaussian_program.py --workdir=...``.
"""

import dataclasses
import os
from pathlib import Path
import signal
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dspc_jax.evaluation import bits_per_example
from experiments import data
from experiments.engine import app, flags, training
from experiments.engine.system import System
from experiments.models.preprocessing import preprocessing


@dataclasses.dataclass(frozen=True)
class GaussianSettings:
    """What a test does to the program; free, so that the run can go on without."""

    nan_at_step: int = flags.flag(0, "this step's loss is nan", free=True)
    nan_seed: int = flags.flag(-1, "only of this seed; -1: of all", free=True)
    kill_at_step: int = flags.flag(0, "SIGKILL once this step is logged", free=True)
    kill_in_save: int = flags.flag(0, "SIGKILL while this step is saved", free=True)
    sleep: float = flags.flag(0.0, "seconds a step", free=True)
    ballast: int = flags.flag(0, "more floats in the state")
    draw: int = flags.flag(0, "1: another batch is drawn within the step")


class State(NamedTuple):
    """Parameters, their optimizer's state, something heavy, the seed's first key."""

    params: Any
    opt_state: optax.OptState
    ballast: jax.Array
    origin: jax.Array


def gaussian_system(
    dataset: data.Dataset, settings: flags.Settings, test: GaussianSettings
) -> System:
    """Maximum likelihood of independent Gaussians on dequantised pixels."""
    shape = dataset.train.shape[1:]
    codec = preprocessing("normal", dataset.num_values)
    optimizer = optax.adam(settings.learning_rate)

    def log_prob(params, x):  # x [V, C]
        z = (x - params["mean"]) * jnp.exp(-params["log_scale"])
        each = -0.5 * z**2 - params["log_scale"] - 0.5 * jnp.log(2 * jnp.pi)
        return each.sum()

    log_probs = jax.vmap(log_prob, (None, 0))

    # The loop gives `init` the first of the seed's four keys.
    keys = jax.random.split(jax.random.key(max(test.nan_seed, 0)), 4)
    origin_of_nan = jax.random.key_data(keys)[0]

    def init(key):
        origin = jax.random.key_data(key)
        params = {
            "mean": 0.1 * jax.random.normal(key, shape),
            "log_scale": jnp.zeros(shape),
        }
        return State(params, optimizer.init(params), jnp.zeros((test.ballast,)), origin)

    def step(state, key, batch, step, draw):
        draw_key, key = jax.random.split(key)
        batch = jnp.concatenate([batch, draw(draw_key)]) if test.draw else batch
        x = codec.encode(key, batch)
        loss, grads = jax.value_and_grad(lambda p: -log_probs(p, x).mean())(
            state.params
        )
        updates, opt_state = optimizer.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        if test.sleep:
            jax.debug.callback(lambda _: time.sleep(test.sleep), loss)
        chosen = (test.nan_seed < 0) | jnp.all(state.origin == origin_of_nan)
        bad = (step + 1 == test.nan_at_step) & chosen
        metrics = {"loss": jnp.where(bad, jnp.nan, loss), "step_again": step + 1.0}
        return State(params, opt_state, state.ballast, state.origin), metrics

    def evaluate(state, key, batch):
        x = codec.encode(key, batch)
        log_p = log_probs(state.params, x)
        return {
            "bits_per_dim": bits_per_example(codec, x, log_p),
            "batch_mean": jnp.mean(batch.astype(jnp.float32)),
        }

    def sample(state, key, num):
        mean, log_scale = (state.params[name][None] for name in ("mean", "log_scale"))
        x = mean + jnp.exp(log_scale) * jax.random.normal(key, (num, *shape))
        means = jnp.broadcast_to(mean, x.shape)
        return {"sampled": codec.to_levels(x), "means": codec.to_levels(means)}

    return System(init, step, evaluate, sample)


def _arm(settings: flags.Settings, test: GaussianSettings) -> None:
    """Starts the thread that kills this process at the moment asked for."""
    workdir = Path(str(settings.workdir))

    def due() -> bool:
        if test.kill_at_step:
            lines = workdir / "metrics.jsonl"
            return (
                lines.exists() and f'"step": {test.kill_at_step},' in lines.read_text()
            )
        return any(
            path.name.startswith(f"{test.kill_in_save}.")
            for path in (workdir / "checkpoints").glob("*tmp*")
        )

    def watch():
        while not due():
            time.sleep(1e-4)
        os.kill(os.getpid(), signal.SIGKILL)

    if test.kill_at_step or test.kill_in_save:
        threading.Thread(target=watch, daemon=True).start()


def main(groups: list[Any]) -> int:
    """Trains."""
    settings, test = groups
    _arm(settings, test)
    dataset = data.load(settings.dataset, settings.data_dir)
    system = gaussian_system(dataset, settings, test)
    return training.run("gaussian_program", system, dataset, groups)


parse = app.parser(
    "gaussian_program",
    "fits a Gaussian",
    flags.Settings,
    GaussianSettings,
    defaults={"learning_rate": 0.05},
)

if __name__ == "__main__":
    app.run(main, parse)
