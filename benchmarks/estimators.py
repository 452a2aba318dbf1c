r"""Bias and variance of each gradient estimator: ``python -m benchmarks.estimators``.

An estimator is the gradient of ``f`` of one differentiable sample (for ``score_...``,
of a surrogate). Many of them give the mean and the variance; the bias is the difference
between the mean and the exact gradient, see `benchmarks.enumeration`.
``--write=docs/estimators.md`` puts the table into the document.
``python -m benchmarks.estimator_costs`` measures the time of a step.
"""

import argparse
from collections.abc import Callable, Container, Iterator
import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.enumeration import (
    CIRCUITS,
    FUNCTIONS,
    exact_gradients,
    functions,
    parameters,
    top_of,
)
import dspc_jax as pc
from dspc_jax.objectives import mean_advantages, rebar_surrogate, score_surrogate
from dspc_jax.sampling import rebar

# Those with a temperature, and those without.
TEMPERED = ("gumbel_softmax", "straight_through", "gumbel_rao", "dense", "rebar")
UNTEMPERED = ("simple", "reinmax", "score_function", "score_pathwise", "implicit")
TEMPERATURES = (0.1, 0.5, 1.0)
BATCH = 2000  # samples of one gradient; the spread of such gradients is measured


class Estimate(NamedTuple):
    """Bias and variance of one estimator of one gradient.

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
        circuit: of the samples.
        objectives: ``[N, V, C]`` to ``[N, F]``.
        params: the circuit's parameters.
        keys: ``[N]``.
        relaxation: the estimator.
        temperature: its temperature, if it has one.

    Returns:
        The means; their gradient is the estimate.
    """
    if relaxation == "rebar":
        return _rebar_means(circuit, objectives, params, keys, temperature)
    if relaxation.startswith("score_"):
        return _score_means(circuit, objectives, params, keys, relaxation)

    def draw(key):
        return circuit.sample_differentiable(
            key, params, relaxation=relaxation, temperature=temperature
        )

    return jnp.mean(objectives(jax.vmap(draw)(keys)), axis=0)


def _rebar_means(circuit, objectives, params, keys, temperature) -> jax.Array:
    """`estimated_means` by REBAR."""
    samples = rebar.draw(circuit.layout, keys, params, temperature)
    exact, relaxed, conditional = map(objectives, samples[:3])
    advantages = jax.vmap(mean_advantages, 1, 1)
    surrogates = jax.vmap(rebar_surrogate, (None, 1, 1, 0, 0))(
        samples.log_choices,
        jax.lax.stop_gradient(advantages(exact)),
        jax.lax.stop_gradient(advantages(conditional)),
        jnp.mean(relaxed, axis=0),
        jnp.mean(conditional, axis=0),
    )
    return jnp.mean(exact, axis=0) + surrogates


def _score_means(circuit, objectives, params, keys, relaxation) -> jax.Array:
    """`estimated_means` by the score, of all parameters or of the weights alone."""
    x = jax.vmap(circuit.sample, (0, None))(keys, params)
    constant, scored = jax.lax.stop_gradient(x), params
    if relaxation == "score_function":
        x = constant
    else:
        leaves = jax.lax.stop_gradient(params.leaves)
        scored = params._replace(leaves=leaves)
    f = objectives(x)
    log_probs = jax.vmap(circuit.log_prob, (None, 0))(scored, constant)
    advantages = jax.lax.stop_gradient(jax.vmap(mean_advantages, 1, 1)(f))
    surrogates = jax.vmap(score_surrogate, (None, 1))(log_probs, advantages)
    return jnp.mean(f, axis=0) + surrogates


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


def measure(
    name: str, num_batches: int, only: Container[str] | None = None
) -> Iterator[Row]:
    """Measures all estimators at all temperatures on one circuit, or one of them.

    Yields:
        Estimator, temperature (None where it has none), function and `Estimate`, from
        ``num_batches * BATCH`` samples; all estimators see the same keys.
    """
    params = parameters(pc.build(CIRCUITS[name]))
    exact = exact_gradients(name)
    truth, leaf_truth = _flat(exact, 1), _flat(exact.leaves, 1)
    rows = [row for row in estimators_of(name) if only is None or row[0] in only]
    mean_gradient = _mean_gradient(name)
    for temperature in (*TEMPERATURES, None):
        estimates = mean_gradient(
            jax.random.key(11),
            params,
            jnp.float32(temperature or 1.0),
            num_batches,
            tuple(row[0] for row in rows if row[1] == temperature),
        )
        for relaxation, gradients in estimates.items():
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


def table(num_batches: int, only: Container[str] | None = None) -> str:
    """All measurements as Markdown, one table for each circuit."""
    lines, leaf_rows = [], []
    for name in CIRCUITS:
        estimates = {key[:-1]: key[-1] for key in measure(name, num_batches, only)}
        rows = {
            row: [estimates[*row, function] for function in FUNCTIONS]
            for row in estimators_of(name)
            if only is None or row[0] in only
        }
        heads = [f"{f}: bias | cosine | variance" for f in FUNCTIONS]
        lines += [
            f"### {name}",
            "",
            f"| relaxation | temperature | {' | '.join(heads)} |",
            "|---|---|" + "---|---|---|" * len(FUNCTIONS),
            *(_row(*row, cells) for row, cells in rows.items()),
            "",
        ]
        leaf_rows += [
            _leaf_row(name, relaxation, cells)
            for (relaxation, temperature), cells in rows.items()
            if temperature in (0.5, None)
        ]
    lines += [
        "### The leaves' part alone, temperature 0.5 or none",
        "",
        f"| circuit | relaxation | {' | '.join(FUNCTIONS)} |",
        "|---|---|" + "---|" * len(FUNCTIONS),
        *leaf_rows,
        "",
    ]
    return "\n".join(lines)


def _row(relaxation: str, temperature: float | None, cells: list[Estimate]) -> str:
    columns = [
        f"{_percent(e.bias, e.error)} | {e.cosine:.3f} | {e.variance:.3g}"
        for e in cells
    ]
    return f"| `{relaxation}` | {temperature or 'none'} | {' | '.join(columns)} |"


def _leaf_row(name: str, relaxation: str, cells: list[Estimate]) -> str:
    columns = [_percent(e.leaf_bias, e.leaf_error) for e in cells]
    return f"| {name} | `{relaxation}` | {' | '.join(columns)} |"


def _percent(bias: float, error: float) -> str:
    return f"{100 * bias:.0f} % (± {100 * error:.1f})"


START, END = "<!-- measured: start -->\n", "<!-- measured: end -->"


def write(path: pathlib.Path, tables: str) -> None:
    """Replaces the text between the marks of the document."""
    head, remainder = path.read_text().split(START)
    _, tail = remainder.split(END)
    path.write_text(head + START + tables + END + tail)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--num_batches", type=int, default=500)
    parser.add_argument("--only", help="one estimator; its rows are printed alone")
    parser.add_argument("--write", type=pathlib.Path, help="document to update")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error(f"--only must be absent beside --write, got {options.only}")
    tables = table(options.num_batches, options.only and (options.only,))
    print(tables)
    if options.write:
        write(options.write, tables)


if __name__ == "__main__":
    main()
