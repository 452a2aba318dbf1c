"""The parameters of a circuit: one NamedTuple, unconstrained and normalized."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple, SupportsIndex, TypeVar

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from dspc_jax import tying
from dspc_jax.arguments import instance, real_number, shown, whole_number
from dspc_jax.layers import input_layer, mixing_layer, sum_layer
from dspc_jax.layers.input_layer import InputBlock
from dspc_jax.ops import divisions
from dspc_jax.ops.float_types import computed_in
from dspc_jax.ops.numerics import finite_or_zero, log_softmax
from dspc_jax.structure.folding import FoldedGraph
from dspc_jax.structure.tied_groups import TiedSums
from dspc_jax.tying import TiedLeaves
from dspc_jax.types import Array, Key, PyTree

_INIT_DEVIATION = 0.5
"""Of the initial logits of sums: Normal numbers, truncated at 2 deviations, as in the
published code of Lang et al. 2022."""


class CircuitParams(NamedTuple):
    """Unconstrained parameters, a pytree of arrays of one type, all finite.

    See `dspc_jax.ops.float_types` for the types.

    A logit of -inf, put there by hand, is a weight of 0 that training leaves alone.

    Attributes:
        leaves: per leaf family, its parameters ``[G, K, L, C]``; configurations may
            differ (`dspc_jax.leaves.joining`). Of tied leaves ``[T, K, 1, C]``, one row
            for each group.
        sums: per level, per fold, logits ``[P, O, K, K]`` (tucker) or ``[P, O, K]``. Of
            tied sums as if all were one level, with a table for each shape.
        mixtures: per level, logits ``[G, K, M]``, or None where nothing is mixed, or
            with equal weights; those of padding are 0 and count for nothing.
        classes: logits ``[Y]`` of the mixture over roots.
    """

    leaves: tuple[Any, ...]
    sums: tuple[tuple[Array, ...], ...]
    mixtures: tuple[Array | None, ...]
    classes: Array


class CircuitWeights(NamedTuple):
    """The same tree, normalized: natural leaf parameters and linear sum weights.

    The gradient of a log-likelihood with respect to these, times the weights, is the
    expected count of every edge (`dspc_jax.learning.em`).
    """

    leaves: tuple[Any, ...]
    sums: tuple[tuple[Array, ...], ...]
    mixtures: tuple[Array | None, ...]
    classes: Array


Tree = TypeVar("Tree", CircuitParams, CircuitWeights)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The static side of a circuit: everything but its parameters.

    Attributes:
        graph: the folded region graph.
        blocks: the leaf families with their variables.
        num_channels: C.
        num_leaves: K of input regions.
        num_sums: K of inner regions.
        num_classes: Y, the units of the root.
        sum_layer: one of `dspc_jax.layers.sum_layer.KINDS`.
        tied_leaves: per block, whose parameters it has; None: it has its own.
        tied_sums: where the parameters of sums are; None: each has its own.
        mixing: as of `dspc_jax.CircuitConfig`.
    """

    graph: FoldedGraph
    blocks: tuple[InputBlock, ...]
    num_channels: int
    num_leaves: int
    num_sums: int
    num_classes: int
    sum_layer: str
    tied_leaves: tuple[TiedLeaves, ...] | None = None
    tied_sums: TiedSums | None = None
    mixing: str = "learned"

    @property
    def leaf_blocks(self) -> tuple[InputBlock, ...]:
        """The blocks whose parameters there are."""
        if self.tied_leaves is None:
            return self.blocks
        return tuple(tied.block for tied in self.tied_leaves)

    @property
    def mixtures(self) -> tuple[np.ndarray | None, ...]:
        """Per level the partitions of the mixtures whose parameters there are."""
        if self.mixing == "uniform":
            return (None,) * len(self.graph.levels)
        if self.tied_sums is None:
            return tuple(level.mixture for level in self.graph.levels)
        return self.tied_sums.mixtures

    def num_units(self, level: int) -> int:
        """Units of the regions of a level (0: inputs)."""
        if level == 0:
            return self.num_leaves
        return self.num_classes if level == len(self.graph.levels) else self.num_sums


@functools.partial(jax.jit, static_argnums=0)
def init(
    layout: Layout,
    key: Key,
    data: Array | None,
    spread: float,
    observed: Array | None = None,
) -> CircuitParams:
    """Random parameters; with ``data`` ``[N, V, C]`` the leaves start at examples.

    It is one program, compiled once for each layout. Random numbers are float32, so
    that equal keys start alike in every type. See
    `dspc_jax.layers.input_layer.init_from_data` for ``spread`` and ``observed``.
    """
    key_leaves, key_sums = jax.random.split(key)
    leaves = []
    if data is not None and layout.tied_leaves is not None:
        key_pooled = jax.random.fold_in(key, 2)
        data, observed = tying.pooled(
            key_pooled, layout.blocks, layout.tied_leaves, data, observed
        )
    for number, block in enumerate(layout.leaf_blocks):
        key_block = jax.random.fold_in(key_leaves, number)
        if data is None:
            leaf = input_layer.init(
                key_block, block, layout.num_leaves, layout.num_channels
            )
        else:
            leaf = input_layer.init_from_data(
                key_block, block, layout.num_leaves, data, spread, observed
            )
        leaves.append(leaf)
    shapes = _logit_shapes(layout)
    numbers = jax.random.truncated_normal(
        key_sums, -2, 2, (divisions.total_size(shapes),), jnp.float32
    )
    sums, mixtures = divisions.divide(_INIT_DEVIATION * numbers, shapes)
    mixtures = tuple(
        None
        if mixture is None
        else jnp.where(mixing_layer.exists(mixture), logits, 0.0)
        for mixture, logits in zip(layout.mixtures, mixtures, strict=True)
    )
    classes = jnp.zeros(layout.num_classes, jnp.float32)
    return CircuitParams(tuple(leaves), sums, mixtures, classes)


def table_shapes(layout: Layout) -> list[list[tuple[int, ...]]]:
    """Per level, per fold, the shape of one partition's logits, ``(O, K[, K])``."""
    return [
        [
            (
                layout.num_units(number),
                *sum_layer.weight_shape(
                    layout.sum_layer if len(fold.children) > 1 else "hadamard",
                    (layout.num_leaves if fold.from_inputs else layout.num_sums,) * 2,
                ),
            )
            for fold in level.folds
        ]
        for number, level in enumerate(layout.graph.levels, start=1)
    ]


def _logit_shapes(layout: Layout) -> PyTree:
    """The shapes of `CircuitParams.sums` and of its mixtures."""
    if layout.tied_sums is None:
        sums = [
            tuple(
                divisions.shape(fold.size, *own)
                for fold, own in zip(level.folds, shapes, strict=True)
            )
            for level, shapes in zip(
                layout.graph.levels, table_shapes(layout), strict=True
            )
        ]
    else:
        sums = [tuple(divisions.shape(*shape) for shape in layout.tied_sums.tables)]
    mixtures = [
        None
        if mixture is None
        else divisions.shape(len(mixture), layout.num_units(number), mixture.shape[1])
        for number, mixture in enumerate(layout.mixtures, start=1)
    ]
    return tuple(sums), tuple(mixtures)


def expanded(layout: Layout, tree: Tree) -> Tree:
    """A tree of parameters, or one like it, with rows for every region and partition.

    Args:
        layout: the circuit.
        tree: `CircuitParams` or `CircuitWeights` of it, of which parts may be tied.

    Returns:
        The tree without ties, and with weights that have no parameters; its gradient
        with respect to what is tied is the sum over all that share it.
    """
    if layout.tied_leaves is not None:
        leaves = tying.leaves_of_regions(layout.tied_leaves, tree.leaves)
        tree = tree._replace(leaves=leaves)
    if layout.tied_sums is not None:
        pair = tying.sums_of_regions(layout.tied_sums, tree.sums, tree.mixtures)
        tree = tree._replace(sums=pair[0], mixtures=pair[1])
    if layout.mixing == "uniform" and isinstance(tree, CircuitWeights):
        mixtures = [
            mixing_layer.equal(level.mixture, layout.num_units(n), tree.classes)
            for n, level in enumerate(layout.graph.levels, start=1)
        ]
        tree = tree._replace(mixtures=tuple(mixtures))
    return tree


def of_regions(
    layout: Layout, params: CircuitParams
) -> tuple[CircuitParams, CircuitWeights]:
    """Parameters and weights as the passes take them, `expanded`."""
    weights = normalize(layout, params)
    return expanded(layout, params), expanded(layout, weights)


def in_levels(layout: Layout, params: CircuitParams) -> CircuitParams:
    """Parameters folded as those of a layout are.

    Args:
        layout: the layout, without ties.
        params: of the same graph, folded in any way
            (`dspc_jax.structure.folding.fold`), or any tree like them.

    Returns:
        The parameters; tables are joined and parted, their rows keep their order.
    """
    tables = [table for level in params.sums for table in level]
    sums, mixtures = [], params.mixtures
    for level in layout.graph.levels:
        folds = []
        for fold in level.folds:
            parts = [tables.pop(0)]
            while (rest := fold.size - sum(map(len, parts))) > 0:
                parts.append(tables.pop(0))
            if rest < 0:
                tables.insert(0, parts[-1][rest:])
                parts[-1] = parts[-1][:rest]
            folds.append(jnp.concatenate(parts))
        sums.append(tuple(folds))
    if len(sums) < len(mixtures):  # steps are those of trees, where nothing is mixed
        mixtures = (None,) * len(sums)
    return params._replace(sums=tuple(sums), mixtures=mixtures)


def given_class(params: CircuitParams, label: Array | SupportsIndex) -> CircuitParams:
    r"""The circuit of one class, :math:`p(x \mid y)`, as parameters.

    With these parameters every query (samples, completions, likelihoods) is that of
    class y.

    Args:
        params: parameters of a circuit with Y classes.
        label: y, an integer in ``0 .. Y - 1``; may be traced. A traced one out of range
            cannot be refused: nothing is possible then, log-likelihoods are ``-inf``.

    Returns:
        The parameters, all weight on root y. Gradients reach all but ``classes``.

    Raises:
        ValueError: no integer, or a number (not traced) out of range.
    """
    instance("params", params, CircuitParams)
    num_classes = params.classes.shape[-1]
    if isinstance(label, Tracer):
        if label.shape != () or not jnp.issubdtype(label.dtype, jnp.integer):
            raise ValueError(f"label must be one integer, got {shown(label)}")
    elif not 0 <= (label := whole_number("label", label)) < num_classes:
        raise ValueError(f"label must be in 0 .. {num_classes - 1}, got {label}")
    chosen = jnp.arange(num_classes) == label
    classes = jnp.where(chosen, 0.0, -jnp.inf).astype(params.classes.dtype)
    return params._replace(classes=classes)


def sharpened(
    layout: Layout, params: CircuitParams, sharpness: Array | float
) -> CircuitParams:
    """As `dspc_jax.sharpened`, of a layout."""
    if shape := getattr(sharpness, "shape", ()):
        raise ValueError(
            f"sharpness must be a scalar (batch with jax.vmap), got shape {shape}"
        )
    if not isinstance(sharpness, Tracer):
        if sharpness != math.inf:
            sharpness = real_number("sharpness", sharpness)
        sharpness = float(sharpness)
        if sharpness < 0:
            raise ValueError(f"sharpness must not be negative, got {sharpness}")
    return _sharpened(layout, params, sharpness)


@functools.partial(jax.jit, static_argnums=0)
def _sharpened(layout, params, sharpness):
    check(layout, params)
    return params._replace(
        sums=jax.tree.map(
            lambda logits: _powers(logits, sharpness, range(2, logits.ndim)),
            params.sums,
        ),
        mixtures=tuple(
            None
            if mixture is None
            else _powers(logits, sharpness, (-1,), mixing_layer.exists(mixture))
            for mixture, logits in zip(layout.mixtures, params.mixtures, strict=True)
        ),
        classes=_powers(params.classes, sharpness, (0,)),
    )


def _powers(logits, sharpness, axes, exists: Any = True):
    """Logits of weights to a power; the greatest along the axes stays finite."""
    wide = logits.astype(computed_in(logits.dtype))
    power = jnp.asarray(sharpness, wide.dtype)
    is_limit = power == jnp.inf
    possible = (wide != -jnp.inf) & exists
    top = jnp.max(jnp.where(possible, wide, -jnp.inf), tuple(axes), keepdims=True)
    top = jax.lax.stop_gradient(finite_or_zero(top))
    # From the top down, or a great power would overflow; with the power 1 as they are.
    below = jnp.where(possible, wide - jnp.where(power == 1, 0.0, top), 0.0)
    powers = jnp.where(is_limit, 1.0, power) * below
    limits = jnp.where(wide < top, -jnp.inf, 0.0)
    chosen = jnp.where(is_limit, limits, powers)
    return jnp.where(possible, chosen, wide).astype(logits.dtype)


def normalize(layout: Layout, params: CircuitParams) -> CircuitWeights:
    """Softmax of all sums' logits, natural form of all leaves."""
    check(layout, params)
    return CircuitWeights(
        leaves=tuple(
            block.leaf.natural(leaf)
            for block, leaf in zip(layout.leaf_blocks, params.leaves, strict=True)
        ),
        sums=sum_layer.weights(params.sums),
        mixtures=tuple(
            None
            if mixture is None or logits is None
            else mixing_layer.weights(mixture, logits)
            for mixture, logits in zip(layout.mixtures, params.mixtures, strict=True)
        ),
        classes=jnp.exp(log_softmax(params.classes, 0)),
    )


def shapes(layout: Layout) -> CircuitParams:
    """The tree of `jax.ShapeDtypeStruct` that parameters of this layout have."""
    return jax.eval_shape(lambda key: init(layout, key, None, 0.0), jax.random.key(0))


def check(layout: Layout, params: CircuitParams) -> None:
    """Refuses parameters of another circuit, also while tracing.

    Args:
        layout: the circuit.
        params: parameters, maybe of another one.

    Raises:
        ValueError: the tree or a shape is another; the message names the first array.
    """
    expected, expected_tree = jax.tree_util.tree_flatten_with_path(shapes(layout))
    arrays, tree = jax.tree.flatten(params)
    if tree != expected_tree:
        raise ValueError(
            "params must have the structure of this circuit's, got "
            f"{shown(params)}; they belong to another circuit"
        )
    for (path, shape), array in zip(expected, arrays, strict=True):
        if jnp.shape(array) != shape.shape:
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"params{name} must have shape {shape.shape}, got {np.shape(array)}; "
                "they belong to another circuit"
            )
