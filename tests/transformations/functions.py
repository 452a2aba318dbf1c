"""The table's rows: every public function of a circuit, of one example.

A row is ``function(circuit, params, case) -> array``. `ROWS` must name every query and
every relaxation (`tests.transformations.test_modes`), so that new ones come into it;
`CASES` are the rows of each circuit, those of `tests.transformations.objectives` too.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dspc_jax as pc
from dspc_jax.flows import ladder
from dspc_jax.queries import DIFFERENTIABLE
from tests import cases
from tests.transformations import objectives


class Example(NamedTuple):
    """An example with what else a function takes; its key is cloned at each draw."""

    x: jax.Array
    observed: jax.Array
    key: jax.Array


Function = Callable[[Any, Any, Example], jax.Array]


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
    "joint_log_probs": lambda c, p, e: c.joint_log_probs(p, e.x, e.observed),
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
    "mpe": lambda c, p, e: c.mpe(p, x=e.x, observed=e.observed, method="best"),
}
INTEGRALS: dict[str, Function] = {
    "covariance": lambda c, p, e: c.covariance(p, e.x, e.observed),
    "expectation": lambda c, p, e: c.expectation(
        p, {0: lambda x: x + 2, 1: jnp.sin}, e.x, e.observed
    ),
    "event_log_prob": lambda c, p, e: c.event_log_prob(
        p, pc.Event(low=e.x - 0.7, high=e.x + 1.2), e.x, e.observed
    ),
}
"""Of circuits alone: behind a flow there are none."""
ROWS = SMOOTH | INTEGRALS | RELAXED | CONDITIONAL | EXACT
OBJECTIVES: dict[str, Function] = objectives.ROWS
PAIRS = ("exact_mmd_loss",)
"""Kernels of pairs: of circuits without mixtures of partitions."""

_BY_CIRCUIT: dict[str, dict[str, Function]] = {
    "normal": ROWS | {n: row for n, row in OBJECTIVES.items() if n not in PAIRS},
    "tree": {n: OBJECTIVES[n] for n in PAIRS},
    "discrete": {n: row for n, row in ROWS.items() if "implicit" not in n},
    # A flow that is not affine has neither mean nor explanation.
    "flow": {n: r for n, r in ROWS.items() if n not in ("mean", "mpe", *INTEGRALS)},
    "affine": {
        n: ROWS[n] for n in ("log_prob, marginal", "mean", "mpe", "sample, given")
    },
}
CASES: dict[str, tuple[str, str, Function]] = {
    f"{circuit}/{name}": (circuit, name, row)
    for circuit, rows in _BY_CIRCUIT.items()
    for name, row in rows.items()
}
"""``"circuit/row"``: the circuit's name, the row's name, the row."""


def case(name: str) -> tuple[Any, Callable[[Any, Example], jax.Array]]:
    """The circuit of one of the `CASES`, and its function of parameters and example."""
    circuit, _, row = CASES[name]
    built = circuits()[circuit]
    return built, lambda params, one: row(built, params, one)


@functools.cache
def circuits() -> dict[str, Any]:
    """Small ones that have every layer, kind of leaf and of flow between them."""

    def small(structure, sum_layer, leaf):
        sizes = {"num_leaves": 2, "num_sums": 2, "num_classes": 2}
        config = pc.CircuitConfig(structure, leaf, sum_layer=sum_layer, **sizes)
        return pc.build(config)

    normal = small(pc.RandomBinaryTrees(2, 1, 2), "tucker", pc.Normal())
    squares = small(pc.RandomBinaryTrees(8, 1, 1), "cp_t", pc.Normal())
    five = (
        *(pc.Categorical(3), pc.Binomial(2), pc.DiscretizedLogistic(3)),
        *(pc.Categorical(2), pc.DiscretizedLogistic(2, 0.1)),
    )
    couplings = ladder.patch_flow(2, 4, patch=2, num_steps=1, num_filters=2)
    return {
        "normal": normal,
        "tree": small(pc.RandomBinaryTrees(2, 1, 1), "tucker", pc.Normal()),
        "discrete": small(pc.RandomBinaryTrees(5, 1, 1), "cp_t", five),
        "flow": pc.transform(squares, ladder.after_logit(couplings)),
        "affine": pc.transform(normal, ladder.color_flow(1, 2, 1)),
    }


def params_of(circuit: Any, seed: int) -> Any:
    """Random numbers for all parameters, drawn by NumPy (no compilation)."""
    if isinstance(circuit, pc.Circuit):
        return cases.random_params(circuit, seed)
    data = jnp.zeros((2, circuit.circuit.config.structure.num_variables, 1))
    shapes = jax.eval_shape(circuit.flow.init, jax.random.key(0), data)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
    return {
        "circuit": cases.random_params(circuit.circuit, seed),
        "flow": cases.randomize(zeros, seed, scale=0.3),
    }


def example(circuit: Any, seed: int = 0) -> Example:
    """An example whose first variable (or block) is observed, values 0, 1 in turn."""
    flow = getattr(circuit, "flow", None)
    config = (circuit if flow is None else circuit.circuit).config
    count = config.structure.num_variables
    x = (jnp.arange(count, dtype=jnp.float32) % 2)[:, None]
    num_masked = count if flow is None else flow.num_blocks
    return Example(x, jnp.arange(num_masked) < 1, jax.random.key(seed))
