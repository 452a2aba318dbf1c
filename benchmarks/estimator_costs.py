r"""The price of each gradient estimator: ``python -m benchmarks.estimator_costs``.

Two tables in Markdown, as in docs/estimators.md: the time of a step, which depends on
the machine, with the noise of its gradient (at temperature 0.5), and the noise that a
gap between two modes costs the unbiased estimators.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from benchmarks.estimators import TEMPERED, UNTEMPERED, estimated_means
import dspc_jax as pc

COSTS = {
    "2 variables, K = 16": pc.CircuitConfig(
        pc.RandomBinaryTrees(2, 1, 4, seed=0), pc.UnitNormal(), 1, 16, 16
    ),
    "8x8 pixels, K = 32": pc.CircuitConfig(
        pc.QuadTree(8, 8), pc.UnitNormal(), 1, 32, 32
    ),
}
BATCH = 256
REPEATS, SECONDS = (8, 40), 10.0  # the most repeats that fit, at least the first


def cost(circuit: pc.Circuit, relaxation: str) -> tuple[float, float]:
    """Time and variance of a gradient of the mean of a kernel over 256 samples.

    The kernel is Gaussian, as wide as samples are apart, at one sample.

    Returns:
        Seconds, the least of the repeats; and the variance of one sample's gradient
        over the squared norm of its mean, all parameters together.
    """
    params = circuit.init(jax.random.key(0))
    point = circuit.sample(jax.random.key(1), params)
    samples = jax.vmap(circuit.sample, (0, None))(
        jax.random.split(jax.random.key(2), 100), params
    )
    width = jnp.median(jnp.sum((samples - point[None]) ** 2, axis=(1, 2)))

    def kernel(x):
        distance = jnp.sum((x - point[None]) ** 2, axis=(1, 2))
        return jnp.exp(-distance / width)[:, None]

    def loss(params, keys):
        return estimated_means(circuit, kernel, params, keys, relaxation, 0.5)[0]

    step = jax.jit(jax.grad(loss))
    times, gradients = [], []
    for number in range(REPEATS[1] + 1):
        if number > REPEATS[0] and sum(times[1:]) > SECONDS:
            break
        keys = jax.random.split(jax.random.key(number + 3), BATCH)
        start = time.perf_counter()
        gradient = jax.block_until_ready(step(params, keys))
        times.append(time.perf_counter() - start)
        flat = [np.asarray(a, np.float64).ravel() for a in jax.tree.leaves(gradient)]
        gradients.append(np.concatenate(flat))
    spread = np.var(gradients, axis=0, ddof=1).sum()
    signal = np.sum(np.mean(gradients, axis=0) ** 2) - spread / len(gradients)
    return min(times[1:]), BATCH * spread / signal


def cost_table() -> str:
    """The cost of all estimators as Markdown, in units of ``straight_through``."""
    heads = [f"{name}: time | variance" for name in COSTS]
    lines = [
        f"| estimator | {' | '.join(heads)} |",
        "|---|" + "---|---|" * len(COSTS),
    ]
    circuits = {name: pc.build(config) for name, config in COSTS.items()}
    units = {
        name: cost(circuit, "straight_through")[0] for name, circuit in circuits.items()
    }
    for relaxation in (*TEMPERED, *UNTEMPERED):
        cells = []
        for name, circuit in circuits.items():
            if relaxation == "dense" and circuit.layout.graph.num_variables > 2:
                cells.append("- | -")  # made for small circuits
                continue
            seconds, variance = cost(circuit, relaxation)
            times = f"{seconds / units[name]:.1f} ({1000 * seconds:.1f} ms)"
            cells.append(f"{times} | {variance:.2g}")
        lines.append(f"| `{relaxation}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gap_variances(distance: float) -> tuple[float, float, float]:
    r"""Variances of one sample's gradient with respect to a mixture's weight.

    The distribution is an equal mixture of two Normals of deviation 1, ``distance``
    apart, the function is ``x``, and the gradient is the difference of the means. By
    integration:
    :math:`\int (F_1 - F_2)^2 / p` for ``implicit``,
    :math:`\int x^2 (p_1 - p_2)^2 / p` for ``score_function`` with the best constant
    baseline; for ``simple`` it is 0.

    Returns:
        Both over the square of the gradient, and the share of samples in the gap's
        middle, within 1 of its center.
    """
    x = np.linspace(-distance / 2 - 10, distance / 2 + 10, 20_001)
    z = np.stack([x + distance / 2, x - distance / 2])
    densities = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    p = densities.mean(axis=0)
    step = x[1] - x[0]
    pathwise = np.sum(np.diff(special.ndtr(z), axis=0) ** 2 / p) * step
    scored = np.sum(x**2 * np.diff(densities, axis=0) ** 2 / p) * step
    middle = np.sum(p[np.abs(x) < 1]) * step
    return pathwise / distance**2 - 1, scored / distance**2 - 1, middle


def gap_table() -> str:
    """`gap_variances` as Markdown."""
    lines = [
        "| distance | `implicit` | `score_...` | in the gap |",
        "|" + "---|" * 4,
    ]
    for distance in (2, 4, 6, 8, 10):
        pathwise, scored, middle = gap_variances(distance)
        lines.append(f"| {distance} | {pathwise:.2g} | {scored:.2g} | {middle:.1g} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(cost_table())
    print(gap_table())
