"""Objectives made of objectives."""

from collections.abc import Callable, Mapping
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from dspc_jax.types import Array, Key, Metrics, PyTree

Objective: TypeAlias = Callable[[Any, Array, Any], tuple[Array, Metrics]]
"""``objective(params, key, batch) -> (scalar loss, metrics)``, a pure function."""


def weighted_sum(
    terms: Mapping[str, tuple[Objective, float | Array]],
) -> Objective:
    r"""The objective :math:`L = \sum_i w_i L_i` of named objectives.

    The sum has the signature of its terms, so sums nest. Every term sees the same
    parameters and the same batch, and its own key, split by its position.

    Args:
      terms: ``{name: (objective, weight)}``, at least one. A weight is a number or a
        traced scalar (schedules do not recompile). A term whose weight is the plain
        number 0 is left out: it is not evaluated, and the keys of the others do not
        change. A traced weight that happens to be 0 still evaluates its term.

    Returns:
      ``objective(params, key, batch)``. Its metrics are those of the terms under
      ``"name/metric"``, and the unweighted loss of each term under ``"name/loss"``.

    Raises:
      ValueError: there is no term, or a plain weight is not finite.
    """
    terms = dict(terms)
    if not terms:
        raise ValueError("terms must name at least one objective, got an empty mapping")
    for name, (_, weight) in terms.items():
        if isinstance(weight, int | float) and not math.isfinite(weight):
            raise ValueError(f"terms[{name!r}] must have a finite weight, got {weight}")

    def objective(params: PyTree, key: Key, batch: Any) -> tuple[Array, Metrics]:
        keys = jax.random.split(key, len(terms))
        total = jnp.zeros(())
        metrics = {}
        for term_key, (name, (term, weight)) in zip(keys, terms.items(), strict=True):
            if isinstance(weight, int | float) and weight == 0:
                continue
            loss, term_metrics = term(params, term_key, batch)
            total = total + weight * loss
            metrics[f"{name}/loss"] = loss
            metrics |= {f"{name}/{metric}": v for metric, v in term_metrics.items()}
        return total, metrics

    return objective
