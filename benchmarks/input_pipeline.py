"""The time that a training step waits: ``python -m benchmarks.input_pipeline``.

It measures the same steps of maximum likelihood with the training set on the device,
and with rows that each chunk of steps brings from the host, as for sets that do not
fit.
"""

import statistics
import sys
import time

from absl import flags as absl_flags
import jax
from jax.sharding import Mesh
import numpy as np

from experiments import data, ll
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings

_CHUNK, _REPEATS = 64, 5


def step_seconds(settings: Settings, dataset: data.Dataset, resident: bool) -> float:
    """Seconds of a training step, the median over chunks.

    Args:
        settings: of `experiments.ll`.
        dataset: the images.
        resident: whether they are on the device from the start.

    Returns:
        Seconds, compilation left out.
    """
    system = ll.make_system(settings, dataset)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    size, limit = settings.batch_size, 2**62 if resident else 0
    loop = DeviceLoop(system, dataset, 0, 1, size, mesh, resident_bytes=limit)
    carry, _ = loop.run(loop.init(), 0, _CHUNK)
    times = []
    for number in range(1, _REPEATS + 1):
        start = time.perf_counter()
        carry, _ = loop.run(carry, number * _CHUNK, _CHUNK)
        jax.block_until_ready(carry.state.params)
        times.append((time.perf_counter() - start) / _CHUNK)
    return statistics.median(times)


def row_seconds(settings: Settings, dataset: data.Dataset) -> float:
    """Seconds a step that the rows of a chunk take from the host to the device."""
    rows = np.random.default_rng(0).integers(
        len(dataset.train), size=_CHUNK * settings.batch_size
    )
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(jax.device_put(dataset.train[rows]))
        times.append((time.perf_counter() - start) / _CHUNK)
    return statistics.median(times)


def main(argv: list[str]) -> None:
    """Prints milliseconds a step; flags are those of `experiments.ll`."""
    settings, _ = ll.parse([*argv, "--recipe=none"], absl_flags.FLAGS)
    dataset = data.load(settings.dataset, settings.data_dir, settings.data_options())
    for name, seconds in (
        ("images on the device", step_seconds(settings, dataset, resident=True)),
        ("rows from the host", step_seconds(settings, dataset, resident=False)),
        ("of which the rows", row_seconds(settings, dataset)),
    ):
        print(f"{name:<20} {1e3 * seconds:8.2f} ms a step")


if __name__ == "__main__":
    main(sys.argv)
