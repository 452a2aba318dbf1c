"""The table's rows: every public function of a circuit, of one example.

A row is ``function(circuit, params, case) -> array``. `ROWS` must name every query and
every relaxation (`tests.transformations.test_modes`), so that new ones come into it.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import dspc_jax as pc
from dspc_jax.queries import DIFFERENTIABLE


class Example(NamedTuple):
    """An example with what else a function takes; its key is cloned at each draw."""

    x: jax.Array
    observed: jax.Array
    key: jax.Array


Function = Callable[[pc.Circuit, Any, Example], jax.Array]


def _relaxed(relaxation: str, evidence: bool) -> Function:
    def draw(circuit, params, case):
        known = {"x": case.x, "observed": case.observed} if evidence else {}
        return circuit.sample_differentiable(
            jax.random.clone(case.key),
            params,
            relaxation=relaxation,
            temperature=0.7,
            **known,
        )

    return draw


SMOOTH: dict[str, Function] = {
    "log_prob": lambda c, p, e: c.log_prob(p, e.x),
    "log_prob, marginal": lambda c, p, e: c.log_prob(p, e.x, e.observed),
    "class_log_probs": lambda c, p, e: c.class_log_probs(p, e.x, e.observed),
    "class_posterior": lambda c, p, e: c.class_posterior(p, e.x, e.observed),
    "mean": lambda c, p, e: c.mean(p, e.x, e.observed),
}
RELAXED = {f"sample_differentiable, {r}": _relaxed(r, False) for r in DIFFERENTIABLE}
CONDITIONAL = {
    f"{name}, given": _relaxed(r, True)
    for name, r in zip(RELAXED, DIFFERENTIABLE, strict=True)
}
EXACT: dict[str, Function] = {
    "sample": lambda c, p, e: c.sample(jax.random.clone(e.key), p),
    "sample, given": lambda c, p, e: c.sample(
        jax.random.clone(e.key), p, x=e.x, observed=e.observed
    ),
    "sample, sharpened": lambda c, p, e: c.sample(
        jax.random.clone(e.key), p, sharpness=2.0
    ),
    "mpe": lambda c, p, e: c.mpe(p, x=e.x, observed=e.observed),
}
ROWS = SMOOTH | RELAXED | CONDITIONAL | EXACT


@functools.cache
def circuits() -> dict[str, pc.Circuit]:
    """Two small ones that have every layer and kind of leaf between them."""
    return {
        "normal": pc.build(
            pc.CircuitConfig(
                structure=pc.RandomBinaryTrees(2, 1, 2),
                leaf=pc.Normal(),
                num_leaves=2,
                num_sums=2,
                num_classes=2,
                sum_layer="tucker",
            )
        ),
        "discrete": pc.build(
            pc.CircuitConfig(
                structure=pc.RandomBinaryTrees(5, 1, 1),
                leaf=(
                    *(pc.Categorical(3), pc.Binomial(2), pc.DiscretizedLogistic(3)),
                    *(pc.Categorical(2), pc.DiscretizedLogistic(2, 0.1)),
                ),
                num_leaves=2,
                num_sums=2,
                num_classes=2,
                sum_layer="cp_t",
            )
        ),
    }


def example(circuit: pc.Circuit, seed: int = 0) -> Example:
    """An example whose first variable is observed, values 0 and 1 in turn."""
    count = circuit.config.structure.num_variables
    x = (jnp.arange(count, dtype=jnp.float32) % 2)[:, None]
    return Example(x, jnp.arange(count) < 1, jax.random.key(seed))
