"""What the study of two-dimensional sets measures, and its figure and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import distance

import dspc_jax as pc
from experiments.two_dimensional.data import PointSet

GRID = 120  # pixels of a density image along each side
_NUM_SAMPLES = 5000
_LEAST_SHARE = 0.25  # of a mode's share of the data, to count as covered


class Measures(NamedTuple):
    """Of one model, per seed ``[S]``.

    Attributes:
        test_ll: exact held-out log-likelihood, nats.
        energy: energy distance between samples and held-out points.
        modes: share of the modes that are covered: the model puts there at least a
            quarter of what the data put.
    """

    test_ll: np.ndarray
    energy: np.ndarray
    modes: np.ndarray


def measure(circuit: pc.Circuit, params: Any, points: PointSet, seed: int) -> Measures:
    """Evaluates all seeds.

    Args:
        circuit: the model.
        params: leading with the seeds.
        points: the set.
        seed: of the samples.
    """

    @jax.jit
    @jax.vmap
    def one(params, key):
        log_p = jax.vmap(circuit.log_prob, (None, 0))(params, jnp.asarray(points.test))
        keys = jax.random.split(key, _NUM_SAMPLES)
        return jnp.mean(log_p), jax.vmap(circuit.sample, (0, None))(keys, params)

    num_seeds = jax.tree.leaves(params)[0].shape[0]
    test_ll, samples = one(params, jax.random.split(jax.random.key(seed), num_seeds))
    test = points.test[:_NUM_SAMPLES, :, 0]
    of_data = _shares(test, points.centers)
    drawn = np.asarray(samples)[..., 0]
    return Measures(
        np.asarray(test_ll, np.float64),
        np.array([energy_distance(x, test) for x in drawn]),
        np.array(
            [
                np.mean(_shares(x, points.centers) >= _LEAST_SHARE * of_data)
                for x in drawn
            ]
        ),
    )


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """``2 E|x - y| - E|x - x'| - E|y - y'|`` of point sets ``[n, d]``, unbiased.

    References:
        Szekely and Rizzo, "Energy statistics", 2013.
    """
    between = distance.cdist(x, y).mean()
    return float(2 * between - distance.pdist(x).mean() - distance.pdist(y).mean())


def _shares(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The share of points nearest to each center."""
    nearest = distance.cdist(x, centers).argmin(1)
    return np.bincount(nearest, minlength=len(centers)) / len(x)


def window(points: PointSet) -> tuple[float, float, float, float]:
    """The part of the plane that the figure shows: left, right, bottom, top."""
    low, high = points.train[:, :, 0].min(0) - 0.3, points.train[:, :, 0].max(0) + 0.3
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def density(circuit: pc.Circuit, params: Any, points: PointSet) -> np.ndarray:
    """The exact density of one seed on a grid over `window`, ``[GRID, GRID]``."""
    left, right, bottom, top = window(points)
    x, y = np.meshgrid(np.linspace(left, right, GRID), np.linspace(bottom, top, GRID))
    grid = jnp.asarray(np.stack([x, y], -1).reshape(-1, 2, 1), jnp.float32)
    log_p = jax.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, grid)
    return np.exp(np.asarray(log_p)).reshape(GRID, GRID)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line a set and objective, means and deviations over the seeds."""
    reference = {
        r["set"]: np.mean(r["test_ll"]) for r in results if r["objective"] == "ll"
    }
    lines = [
        "| set | objective | held-out LL, nats | gap to LL | energy distance | modes |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for r in results:
        gap = (
            ""
            if r["objective"] == "ll" or r["set"] not in reference
            else (f"{reference[r['set']] - np.mean(r['test_ll']):.3f}")
        )
        lines.append(
            f"| {r['set']} | {r['objective']} | {_spread(r['test_ll'], 3)} | {gap} | "
            f"{_spread(r['energy'], 4)} | {100 * np.mean(r['modes']):.0f} % |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def figure(
    path: Path,
    sets: Sequence[PointSet],
    densities: Mapping[tuple[str, str], np.ndarray],
    objectives: Sequence[str],
) -> None:
    """Data beside the models' exact densities, one row a set.

    Args:
        path: of the PNG.
        sets: the rows.
        densities: by set and objective, from `density`.
        objectives: the columns after the data.
    """
    from matplotlib.figure import Figure

    size = (1.6 * (1 + len(objectives)), 1.6 * len(sets))
    canvas = Figure(figsize=size, layout="constrained")
    axes = canvas.subplots(len(sets), 1 + len(objectives), squeeze=False)
    for row, points in zip(axes, sets, strict=True):
        extent = window(points)
        x = points.test[:2000, :, 0]
        row[0].scatter(x[:, 0], x[:, 1], s=0.5, linewidths=0, color="black")
        row[0].set_xlim(*extent[:2])
        row[0].set_ylim(*extent[2:])
        row[0].set_ylabel(points.name.replace("_", " "), fontsize=8)
        shown = [densities[points.name, o] for o in objectives]
        top = np.quantile(shown[0], 0.999)
        for axis, image in zip(row[1:], shown, strict=True):
            axis.imshow(
                image, origin="lower", extent=extent, aspect="auto", vmin=0, vmax=top
            )
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(axes[0], ("data", *objectives), strict=True):
        axis.set_title(title.replace("_", " "), fontsize=9)
    canvas.savefig(path, dpi=120)
