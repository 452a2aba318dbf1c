"""Times the measures of `dspc_jax.evaluation` and the network that the FID needs.

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --num_points=1000 --batches=8

Run it on a machine with nothing else to do; the processor time (all threads) beside the
wall time tells whether it had. Weights and points are random: the time is the same.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import evaluation
from dspc_jax.evaluation.inception.network import SIZE, Inception, inception_outputs


class Measurement(NamedTuple):
    """The best of some calls.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of all threads.
    """

    seconds: float
    cpu_seconds: float


def measure(call: Callable[[], Any], *, num_calls: int) -> Measurement:
    """Times calls after one that compiles; the fastest counts, by each clock."""
    jax.block_until_ready(call())
    wall, processor = [], []
    for _ in range(num_calls):
        starts = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        wall.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    return Measurement(min(wall), min(processor))


def network(batch: int, size: int, *, num_calls: int = 3) -> Measurement:
    """The features of a batch of images ``[batch, size, size, 3]``, resized to 299."""
    generator = np.random.default_rng(0)
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    params = jax.tree.map(
        # About the scale that keeps activations of order 1.
        lambda leaf: 0.05 * generator.standard_normal(leaf.shape, np.float32),
        shapes,
    )
    params = jax.device_put(params)
    levels = generator.integers(0, 256, (batch, size, size, 3), np.uint8)
    outputs = jax.jit(inception_outputs)
    return measure(lambda: outputs(params, levels), num_calls=num_calls)


def distances(num_points: int, num_features: int) -> Iterator[tuple[str, Measurement]]:
    """Every measure of two sets of features ``[num_points, num_features]``, by name."""
    generator = np.random.default_rng(0)
    x, y = generator.random((2, num_points, num_features), np.float32)
    moments = evaluation.statistics(y)
    subset = min(1000, num_points // 2)
    calls: dict[str, Callable[[], Any]] = {
        "moments": lambda: evaluation.statistics(x),
        "Frechet distance of moments": lambda: (
            evaluation.frechet_distance_of_statistics(moments, moments)
        ),
        "kernel distance, 100 subsets": lambda: evaluation.kernel_distance(
            x, y, subset_size=subset
        ),
        "precision, recall, density, coverage": lambda: evaluation.precision_recall(
            x, y
        ),
        "diversity": lambda: evaluation.diversity(x, y),
        "Frechet distance, 15 sizes": lambda: evaluation.frechet_distance_infinity(
            x, moments, min_size=num_points // 2
        ),
    }
    for name, call in calls.items():
        yield name, measure(call, num_calls=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table in Markdown, line by line."""
    parser = argparse.ArgumentParser(
        description="Times the measures of dspc_jax.evaluation."
    )
    parser.add_argument("--batches", default="32", help="sizes of batches, with commas")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--num_points", type=int, default=10_000)
    parser.add_argument("--num_features", type=int, default=2048)
    options = parser.parse_args(arguments)
    print("| | wall s | CPU s | images/s |\n|---|---:|---:|---:|")
    for batch in map(int, filter(None, options.batches.split(","))):
        best = network(batch, options.image_size)
        print(
            f"| Inception, batch {batch}, from {options.image_size} px "
            f"| {best.seconds:.2f} | {best.cpu_seconds:.2f} "
            f"| {batch / best.seconds:.1f} |",
            flush=True,
        )
    for name, best in distances(options.num_points, options.num_features):
        print(f"| {name} | {best.seconds:.1f} | {best.cpu_seconds:.1f} | |", flush=True)


if __name__ == "__main__":
    main()
