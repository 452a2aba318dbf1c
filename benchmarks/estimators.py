r"""Bias and variance of each gradient estimator: ``python -m benchmarks.estimators``.

On circuits small enough to enumerate, the exact gradient of ``E f(x)`` is

.. math:: \nabla \sum_x p(x) f(x)

and an estimator is the gradient of ``f`` of one differentiable sample (for
``score_...``, of a surrogate). Many of them give the mean and the variance; what
is left between mean and exact gradient is bias. With Normal leaves the sum is an
integral, on a grid. ``--write=docs/estimators.md`` puts the table into the document.
``python -m benchmarks.estimator_costs`` measures the time of a step.
"""

import argparse
from collections.abc import Callable, Iterator
import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dspc_jax as pc
from dspc_jax.objectives import mean_advantages, rebar_surrogate, score_surrogate
from dspc_jax.sampling import rebar

# Those with a temperature, and those without.
TEMPERED = ("gumbel_softmax", "straight_through", "gumbel_rao", "dense", "rebar")
UNTEMPERED = ("simple", "reinmax", "score_function", "score_pathwise", "implicit")
TEMPERATURES = (0.1, 0.5, 1.0)
FUNCTIONS = ("linear", "quadratic", "kernel")
BATCH = 2000  # samples of one gradient; the spread of such gradients is measured

CIRCUITS = {
    "trees, tucker": pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 1, 2, seed=3),
        pc.Bernoulli(),
        num_leaves=3,
        num_sums=2,
        sum_layer="tucker",
    ),
    "trees, cp": pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 2, 2, seed=3),
        pc.Binomial(2),
        num_leaves=3,
        num_sums=2,
        sum_layer="cp",
    ),
    "quad tree": pc.CircuitConfig(
        pc.QuadTree(2, 2), pc.Bernoulli(), num_leaves=2, num_sums=2, sum_layer="tucker"
    ),
    "two variables, normal": pc.CircuitConfig(
        pc.RandomBinaryTrees(2, 1, 2, seed=3),
        pc.Normal(0.3, 1.0),
        num_leaves=3,
        num_sums=2,
        sum_layer="tucker",
    ),
}


class Estimate(NamedTuple):
    """What is known of one estimator of one gradient.

    Attributes:
      bias: norm of the mean's error over the norm of the exact gradient, without the
        part that the number of samples explains.
      cosine: of the mean with the exact gradient.
      variance: of one sample, summed over all parameters, over the exact gradient's
        squared norm: so many samples make noise as large as the signal.
      error: standard error of the mean over the norm of the exact gradient.
      leaf_bias: as ``bias`` for the leaves' parameters alone.
      leaf_error: as ``error`` for these.
    """

    bias: float
    cosine: float
    variance: float
    error: float
    leaf_bias: float
    leaf_error: float


def estimators_of(name: str) -> list[tuple[str, float | None]]:
    """The rows of a circuit's table: estimators and their temperatures."""
    continuous = np.isinf(CIRCUITS[name].leaves[0].support[1])
    rows: list[tuple[str, float | None]] = [
        *itertools.product(TEMPERED, TEMPERATURES),
        *((name, None) for name in UNTEMPERED),
    ]
    return [row for row in rows if row[0] != "implicit" or continuous]


def functions(x: jax.Array, top: float) -> jax.Array:
    """The three objectives of one value ``[V, C]``, ``[3]``; ``top`` is its maximum.

    The linear and the quadratic one have terms between pixels of all sizes; the kernel
    is the Gaussian one of an MMD, at one fixed point.
    """
    x = x.ravel() / top
    weights = jnp.array([1.0, -0.5, 0.75, 1.5])[: x.size]
    point = jnp.array([1.0, 0.0, 1.0, 1.0])[: x.size]
    linear = weights @ x
    distance = jnp.sum((x - point) ** 2)
    return jnp.stack([linear, (linear - 0.5) ** 2, jnp.exp(-distance)])


def parameters(circuit: pc.Circuit) -> Any:
    """Fixed parameters, wide enough for choices and leaves of all probabilities."""
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes
    )


def top_of(name: str) -> float:
    """What values are divided by: the greatest one, or 1 if there is none."""
    top = float(CIRCUITS[name].leaves[0].support[1])
    return top if np.isfinite(top) else 1.0


def points(name: str) -> tuple[np.ndarray, float]:
    """All values ``[S, V, C]``, or a grid of them, and the volume that each stands for.

    Densities are smooth and vanish at the grid's ends, where sums over it are exact to
    rounding: its step is a quarter of the least deviation, 0.3, and all means are
    within 4.
    """
    num_variables = CIRCUITS[name].structure.num_variables
    top = CIRCUITS[name].leaves[0].support[1]
    if np.isfinite(top):
        axis, step = np.arange(top + 1), 1.0
    else:
        step = 0.075
        axis = np.arange(-9, 9 + step, step)
    values = np.array(list(itertools.product(axis, repeat=num_variables)))
    return values[..., None], step**num_variables


def exact_gradients(name: str) -> Any:
    """Gradients of ``E f(x)`` by enumeration, a tree with leading axis 3."""
    circuit = pc.build(CIRCUITS[name])
    values, volume = points(name)
    x = jnp.asarray(values, jnp.float32)
    f = volume * jax.vmap(functools.partial(functions, top=top_of(name)))(x)

    def means(params):
        return jnp.exp(jax.vmap(circuit.log_prob, (None, 0))(params, x)) @ f

    return jax.jit(jax.jacrev(means))(parameters(circuit))


def estimated_means(
    circuit: pc.Circuit,
    objectives: Callable[[jax.Array], jax.Array],
    params: Any,
    keys: jax.Array,
    relaxation: str,
    temperature: jax.Array | float,
) -> jax.Array:
    """Means ``[F]`` of functions of samples, with an estimator's gradient.

    Args:
      circuit: what is drawn from.
      objectives: ``[N, V, C]`` to ``[N, F]``.
      params: the circuit's parameters.
      keys: ``[N]``.
      relaxation: the estimator.
      temperature: its temperature, if it has one.
    """
    if relaxation == "rebar":
        samples = rebar.draw(circuit.layout, keys, params, temperature)
        exact, relaxed, conditional = map(objectives, samples[:3])
        of_each = jax.vmap(mean_advantages, 1, 1)
        left = of_each(exact), of_each(conditional)
        surrogates = jax.vmap(rebar_surrogate, (None, 1, 1, 0, 0))(
            samples.log_choices,
            *jax.lax.stop_gradient(left),
            jnp.mean(relaxed, axis=0),
            jnp.mean(conditional, axis=0),
        )
        return jnp.mean(exact, axis=0) + surrogates
    if relaxation.startswith("score_"):
        x = jax.vmap(circuit.sample, (0, None))(keys, params)
        fixed, scored = jax.lax.stop_gradient(x), params
        if relaxation == "score_function":
            x = fixed
        else:
            leaves = jax.lax.stop_gradient(params.leaves)
            scored = params._replace(leaves=leaves)
        f = objectives(x)
        log_probs = jax.vmap(circuit.log_prob, (None, 0))(scored, fixed)
        advantages = jax.lax.stop_gradient(jax.vmap(mean_advantages, 1, 1)(f))
        surrogates = jax.vmap(score_surrogate, (None, 1))(log_probs, advantages)
        return jnp.mean(f, axis=0) + surrogates

    def one(key):
        return circuit.sample_differentiable(
            key, params, relaxation=relaxation, temperature=temperature
        )

    return jnp.mean(objectives(jax.vmap(one)(keys)), axis=0)


@functools.cache
def _mean_gradient(name: str):
    """``(key, params, temperature)`` to each relaxation's mean gradient of a batch."""
    circuit = pc.build(CIRCUITS[name])
    objectives = jax.vmap(functools.partial(functions, top=top_of(name)))

    means = functools.partial(estimated_means, circuit, objectives)

    @functools.partial(jax.jit, static_argnums=(3, 4))
    def gradients(key, params, temperature, count, relaxations):
        def batch(key):
            keys = jax.random.split(key, BATCH)
            return {
                relaxation: jax.jacrev(means)(
                    params, jax.random.clone(keys), relaxation, temperature
                )
                for relaxation in relaxations
            }

        return jax.lax.map(batch, jax.random.split(key, count))

    return gradients


def _flat(tree: Any, axes: int) -> np.ndarray:
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(tree)]
    return np.concatenate([a.reshape(*a.shape[:axes], -1) for a in leaves], axis=-1)


Row = tuple[str, float | None, str, Estimate]


def measure(name: str, num_batches: int, only: str | None = None) -> Iterator[Row]:
    """Measures all estimators at all temperatures on one circuit, or one of them.

    Yields:
      Estimator, temperature (None where it has none), function and `Estimate`, from
      ``num_batches * BATCH`` samples; all estimators see the same keys.
    """
    params = parameters(pc.build(CIRCUITS[name]))
    exact = exact_gradients(name)
    truth, leaf_truth = _flat(exact, 1), _flat(exact.leaves, 1)
    rows = [row for row in estimators_of(name) if only in (None, row[0])]
    for temperature in (*TEMPERATURES, None):
        found = _mean_gradient(name)(
            jax.random.key(11),
            params,
            jnp.float32(temperature or 1.0),
            num_batches,
            tuple(row[0] for row in rows if row[1] == temperature),
        )
        for relaxation, gradients in found.items():
            batches, leaf_batches = _flat(gradients, 2), _flat(gradients.leaves, 2)
            for i, function in enumerate(FUNCTIONS):
                bias, cosine, variance, error = _compare(batches[:, i], truth[i])
                leaf = _compare(leaf_batches[:, i], leaf_truth[i])
                estimate = Estimate(bias, cosine, variance, error, leaf[0], leaf[3])
                yield relaxation, temperature, function, estimate


def _compare(batches: np.ndarray, truth: np.ndarray):
    """Bias, cosine, variance and error from means of batches ``[M, D]``."""
    scale = np.linalg.norm(truth)
    mean = batches.mean(axis=0)
    spread = batches.var(axis=0, ddof=1).sum()
    squared_error = spread / len(batches)
    squared_bias = np.sum((mean - truth) ** 2) - squared_error
    return (
        float(np.sqrt(max(squared_bias, 0.0)) / scale),
        float(mean @ truth / (np.linalg.norm(mean) * scale)),
        float(BATCH * spread / scale**2),
        float(np.sqrt(squared_error) / scale),
    )


def table(num_batches: int, only: str | None = None) -> str:
    """All measurements as Markdown, one table for each circuit."""
    out, leaves = [], []
    for name in CIRCUITS:
        cells = {key[:-1]: key[-1] for key in measure(name, num_batches, only)}
        measured = [row for row in estimators_of(name) if only in (None, row[0])]
        heads = [f"{f}: bias | cosine | variance" for f in FUNCTIONS]
        out += [
            f"### {name}",
            "",
            f"| relaxation | temperature | {' | '.join(heads)} |",
            "|---|---|" + "---|---|---|" * len(FUNCTIONS),
        ]
        for relaxation, temperature in measured:
            row = [cells[relaxation, temperature, f] for f in FUNCTIONS]
            columns = [
                f"{_percent(e.bias, e.error)} | {e.cosine:.3f} | {e.variance:.3g}"
                for e in row
            ]
            start = f"| `{relaxation}` | {temperature or 'none'} | "
            out.append(f"{start}{' | '.join(columns)} |")
        out.append("")
        for relaxation, temperature in measured:
            if temperature not in (0.5, None):
                continue
            row = [cells[relaxation, temperature, f] for f in FUNCTIONS]
            columns = [_percent(e.leaf_bias, e.leaf_error) for e in row]
            leaves.append(f"| {name} | `{relaxation}` | {' | '.join(columns)} |")
    out += [
        "### The leaves' part alone, temperature 0.5 or none",
        "",
        f"| circuit | relaxation | {' | '.join(FUNCTIONS)} |",
        "|---|---|" + "---|" * len(FUNCTIONS),
        *leaves,
        "",
    ]
    return "\n".join(out)


def _percent(bias: float, error: float) -> str:
    return f"{100 * bias:.0f} % (± {100 * error:.1f})"


START, END = "<!-- measured: start -->\n", "<!-- measured: end -->"


def write(path: pathlib.Path, measured: str) -> None:
    """Replaces what stands between the marks of the document."""
    text = path.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    path.write_text(before + START + measured + END + after)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--num_batches", type=int, default=500)
    parser.add_argument("--only", help="one estimator; its rows are printed alone")
    parser.add_argument("--write", type=pathlib.Path, help="document to update")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("--write: must not go with --only (it writes all rows)")
    measured = table(options.num_batches, options.only)
    print(measured)
    if options.write:
        write(options.write, measured)


if __name__ == "__main__":
    main()
