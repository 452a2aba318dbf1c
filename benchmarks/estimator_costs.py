r"""The price of each gradient estimator: ``python -m benchmarks.estimator_costs``.

Two tables in Markdown, as in docs/estimators.md: the time of a step, which depends on
the machine, and the noise that a gap between two modes costs the unbiased estimators,
which does not.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from benchmarks.estimators import TEMPERED, UNTEMPERED
import dspc_jax as pc
from dspc_jax.objectives import mean_advantages, score_surrogate

COSTS = {
    "2 variables, K = 16": pc.CircuitConfig(
        pc.RandomBinaryTrees(2, 1, 4, seed=0), pc.Normal(), 1, 16, 16
    ),
    "8x8 pixels, K = 32": pc.CircuitConfig(pc.QuadTree(8, 8), pc.Normal(), 1, 32, 32),
}


def cost(circuit: pc.Circuit, relaxation: str, repeats: int = 20) -> float:
    """Seconds for 256 samples and the gradient of a function of them; the least."""
    params = circuit.init(jax.random.key(0))

    def loss(params, keys):
        if relaxation.startswith("score_"):
            x = jax.vmap(circuit.sample, (0, None))(keys, params)
            fixed, scored = jax.lax.stop_gradient(x), params
            if relaxation == "score_function":
                x = fixed
            else:
                leaves = jax.lax.stop_gradient(params.leaves)
                scored = params._replace(leaves=leaves)
            losses = jnp.sum(jnp.cos(x), axis=(1, 2))
            log_probs = jax.vmap(circuit.log_prob, (None, 0))(scored, fixed)
            advantages = mean_advantages(losses)
            return jnp.mean(losses) + score_surrogate(log_probs, advantages)

        def one(key):
            return circuit.sample_differentiable(
                key, params, relaxation=relaxation, temperature=0.5
            )

        return jnp.mean(jnp.sum(jnp.cos(jax.vmap(one)(keys)), axis=(1, 2)))

    step = jax.jit(jax.grad(loss))
    times = []
    for number in range(repeats + 1):
        keys = jax.random.split(jax.random.key(number), 256)
        start = time.perf_counter()
        jax.block_until_ready(step(params, keys))
        times.append(time.perf_counter() - start)
    return min(times[1:])


def cost_table() -> str:
    """The cost of all estimators as Markdown, in units of ``straight_through``."""
    lines = [f"| estimator | {' | '.join(COSTS)} |", "|---|" + "---|" * len(COSTS)]
    unit = {name: cost(pc.build(c), "straight_through") for name, c in COSTS.items()}
    for relaxation in (*TEMPERED, *UNTEMPERED):
        cells = []
        for name, config in COSTS.items():
            if relaxation == "dense" and config.structure.num_variables > 2:
                cells.append("-")  # made for small circuits
                continue
            seconds = cost(pc.build(config), relaxation)
            cells.append(f"{seconds / unit[name]:.1f} ({1000 * seconds:.1f} ms)")
        lines.append(f"| `{relaxation}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gap_variances(distance: float) -> tuple[float, float, float]:
    r"""Variances of one sample's gradient with respect to a mixture's weight.

    The law is an equal mixture of two Normals of deviation 1, ``distance`` apart, the
    function is ``x``, and the gradient is the difference of the means. By integration:
    :math:`\int (F_1 - F_2)^2 / p` for ``implicit``,
    :math:`\int x^2 (p_1 - p_2)^2 / p` for ``score_function`` with the best constant
    baseline; for ``simple`` it is 0.

    Returns:
      Both over the square of the gradient, and the share of samples in the gap's
      middle, within 1 of its centre.
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
        "| distance | `implicit` | `score_function` | in the gap |",
        "|" + "---|" * 4,
    ]
    for distance in (2, 4, 6, 8, 10):
        pathwise, scored, middle = gap_variances(distance)
        lines.append(f"| {distance} | {pathwise:.2g} | {scored:.2g} | {middle:.1g} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(cost_table())
    print(gap_table())
