r"""Products of two compatible circuits: their integral, and what follows from it.

.. math:: \langle p, q \rangle = \int p(x)\, q(x)\, dx

Compatible are two circuits of one structure in which every region is split in one way
(`dspc_jax.inference.pairs`); numbers of units and classes may differ. Exact for leaves
with finitely many values and for Normal ones. The integral of a density is in inverse
units of the values, its logarithm is moved by their scale as a differential entropy is.
"""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import parameters
from dspc_jax.analysis import absorbed
from dspc_jax.arguments import instance, shown, store
from dspc_jax.circuit import Circuit, CircuitConfig, build, product_graph
from dspc_jax.inference import pairs
from dspc_jax.inference.leaf_rows import rows
from dspc_jax.leaves import Categorical, Normal, integrals
from dspc_jax.leaves.categorical import CategoricalParams
from dspc_jax.ops.float_types import widened
from dspc_jax.parameters import CircuitParams
from dspc_jax.types import Array


def log_inner_product(
    circuit: Circuit,
    params: CircuitParams,
    other_params: CircuitParams,
    *,
    other: Circuit | None = None,
) -> Array:
    r"""The logarithm of :math:`\int p(x)\, q(x)\, dx`, exact.

    It is the normalizer of the product of both (`product`), and of discrete circuits
    the probability that a sample of each are equal.

    Args:
        circuit: that of p.
        params: its parameters.
        other_params: those of q.
        other: the circuit of q, compatible with the first; None: the same.

    Returns:
        Nats, a scalar, differentiable in both parameters; ``-inf`` where no value is
        possible under both.

    Raises:
        ValueError: the circuits are not compatible, or a leaf has neither finitely many
            values nor products in closed form.
    """
    other = circuit if other is None else other
    check_compatible(circuit, other)
    (params, other_params), _ = widened((params, other_params))
    return _log_inner_product(circuit, other, params, other_params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_inner_product(circuit, other, params, other_params):
    layout, params_of, weights = _both(circuit, other, params, other_params)
    inputs = pairs.overlaps_of_regions(layout, params_of, weights, _QUERY)
    return pairs.root(weights, pairs.above(layout, weights, inputs)[-1])


def collision_entropy(circuit: Circuit, params: CircuitParams) -> Array:
    r"""The Rényi entropy of order 2, :math:`-\log \int p(x)^2 dx`, exact.

    A lower bound of the Shannon entropy (`dspc_jax.entropy_estimate`).

    Args:
        circuit: each region split in one way.
        params: its parameters.

    Returns:
        Nats, a scalar; of continuous variables it may be negative.

    Raises:
        ValueError: as of `log_inner_product`.
    """
    return -log_inner_product(circuit, params, params)


def cauchy_schwarz_divergence(
    circuit: Circuit,
    params: CircuitParams,
    other_params: CircuitParams,
    *,
    other: Circuit | None = None,
) -> Array:
    r"""The divergence of Cauchy and Schwarz between two circuits, exact.

    .. math:: -\log \frac{\langle p, q \rangle}
      {\sqrt{\langle p, p \rangle \langle q, q \rangle}} \ge 0

    Symmetric, 0 for equal distributions alone, the same in all units of measure.

    Args:
        circuit: that of p.
        params: its parameters.
        other_params: those of q.
        other: the circuit of q, compatible with the first; None: the same.

    Returns:
        Nats, a scalar; ``inf`` where no value is possible under both. Rounding may put
        that of nearly equal distributions below 0, by about 1e-6 times the integrals'
        logarithms.

    Raises:
        ValueError: as of `log_inner_product`.

    References:
        Jenssen, Principe, Erdogmus and Eltoft, "The Cauchy-Schwarz divergence and
        Parzen windowing", Journal of the Franklin Institute 2006.
    """
    other = circuit if other is None else other
    both = log_inner_product(circuit, params, other_params, other=other)
    own = log_inner_product(circuit, params, params)
    others = log_inner_product(other, other_params, other_params)
    return 0.5 * (own + others) - both


def product(
    circuit: Circuit,
    params: CircuitParams,
    other_params: CircuitParams,
    *,
    other: Circuit | None = None,
) -> tuple[Circuit, CircuitParams]:
    r"""The distribution :math:`p(x)\, q(x) / \langle p, q \rangle` as a circuit, exact.

    Its units are pairs of units, so tables of weights grow with the fourth power
    (``cp``: the square) of the number; all queries of a circuit are those of the
    product. ``product(circuit, params, params)`` is the square.

    Args:
        circuit: that of p.
        params: its parameters.
        other_params: those of q.
        other: the circuit of q, compatible with the first; None: the same.

    Returns:
        The circuit and its parameters, differentiable in both. Leaves with finitely
        many values are `dspc_jax.Categorical`. Where p and q have no possible value in
        common, its units are arbitrary.

    Raises:
        ValueError: as of `log_inner_product`.
    """
    other = circuit if other is None else other
    check_compatible(circuit, other)
    (params, other_params), _ = widened((params, other_params))
    built = build(_product_config(circuit.config, other.config))
    return built, _product(circuit, other, built, params, other_params)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _product(circuit, other, built, params, other_params):
    layout, params_of, weights = _both(circuit, other, params, other_params)
    inputs = pairs.overlaps_of_regions(layout, params_of, weights, _QUERY)
    tables = pairs.above(layout, weights, inputs)
    leaves = [
        _leaf_product(block, own, naturals, layout.num_channels)
        for block, own, naturals in zip(
            layout.blocks,
            zip(*(own.leaves for own in params_of), strict=True),
            zip(*(own.leaves for own in weights), strict=True),
            strict=True,
        )
    ]
    leaves = absorbed.moved_leaves(
        *(layout.blocks, leaves, built.layout.blocks),
        parameters.shapes(built.layout).leaves,
        *(
            np.arange(len(layout.graph.input_scopes)),
            np.arange(len(circuit.config.leaves)),
        ),
    )
    constants = [table.reshape(len(table), -1, 1) for table in tables]
    joined = [
        [_of_pairs(*own) for own in zip(*folds, strict=True)]
        for folds in zip(*(own.sums for own in weights), strict=True)
    ]
    sums = absorbed.sums(layout, joined, constants)
    classes = _of_pairs(*(own.classes[None, None] for own in weights))
    classes = absorbed.log_weights(classes, [constants[-1]])[0, 0]
    return CircuitParams(leaves, sums, (None,) * len(sums), classes)


_QUERY = "products"


def _both(circuit, other, params, other_params):
    """The layout, parameters of regions and weights of two compatible circuits."""
    first = parameters.of_regions(circuit.layout, params)
    second = parameters.of_regions(other.layout, other_params)
    return circuit.layout, (first[0], second[0]), (first[1], second[1])


def check_compatible(circuit: Circuit, other: Circuit) -> None:
    """Raises ValueError unless two circuits are compatible.

    Args:
        circuit: any.
        other: any.

    Raises:
        ValueError: one mixes partitions, or structure, leaves, channels or kind of sum
            layer differ.
    """
    for name, one in (("circuit", circuit), ("other", other)):
        instance(name, one, Circuit)
        if not pairs.is_tree(one.layout):
            raise ValueError(
                f"{name} must have one partition of every region (a quad tree, or "
                f"num_repetitions=1) for products, got {shown(one.config.structure)}"
            )
    first, second = circuit.config, other.config
    tucker = [config.sum_layer == "tucker" for config in (first, second)]
    for name, ours, theirs in (
        ("leaves", first.leaves, second.leaves),
        ("num_channels", first.num_channels, second.num_channels),
        ("products of units", *tucker),
        ("region graph", product_graph(first), product_graph(second)),
    ):
        if ours != theirs:
            raise ValueError(
                f"other must have the {name} of circuit, got another one: "
                f"{shown(other.config)}"
            )


def _product_config(first: CircuitConfig, second: CircuitConfig) -> CircuitConfig:
    tucker = first.sum_layer == "tucker"
    return CircuitConfig(
        structure=product_graph(first),
        leaf=tuple(map(_leaf_of_product, first.leaves)),
        num_channels=first.num_channels,
        num_leaves=first.num_leaves * second.num_leaves,
        num_sums=first.num_sums * second.num_sums,
        num_classes=first.num_classes * second.num_classes,
        sum_layer="tucker" if tucker else "cp_t",
    )


def _leaf_of_product(leaf):
    count = integrals.num_values(leaf)
    if count is not None:
        return Categorical(count)
    if isinstance(leaf, Normal):
        # The product is the narrower, by a factor of at most the root of 2.
        return Normal(min_scale=0.5 * leaf.min_scale)
    integrals.require(False, _QUERY, "finitely many values or Normal ones", leaf)
    raise AssertionError


def _leaf_product(block, params, naturals, num_channels):
    """The normalized products of a family's leaves, ``[G, K K', L, C, ...]``."""
    own = block.at(block.scopes.ravel())
    count = integrals.num_values(block.family)
    channels = []
    for c in range(num_channels):
        if count is None:
            product_ = _normal_product(own, *(rows(block, p, c) for p in params))
        else:
            left, right = (rows(block, natural, c) for natural in naturals)
            values = jnp.arange(count, dtype=jax.tree.leaves(left)[0].dtype)
            x = jnp.tile(values[None], (block.scopes.size, 1))
            p, q = (integrals.log_table(own, natural, x) for natural in (left, right))
            table = p[:, :, None] + q[:, None]
            product_ = CategoricalParams(table.reshape(len(table), -1, count))
        channels.append(product_)

    def regions(*arrays):
        stacked = jnp.stack(arrays, axis=2)  # [G * L, K K', C, ...]
        stacked = stacked.reshape(*block.scopes.shape, *stacked.shape[1:])
        return jnp.moveaxis(stacked, 1, 2)

    return jax.tree.map(regions, *channels)


def _normal_product(leaf, left, right):
    left = jax.tree.map(lambda p: p[:, :, None], left)
    right = jax.tree.map(lambda p: p[:, None], right)
    first, second = leaf.variance(left), leaf.variance(right)
    total = first + second
    mean = left.mean + (right.mean - left.mean) * (first / total)
    std = jnp.sqrt(first * (second / total))
    own = copy.copy(leaf)
    store(own, min_scale=0.5 * leaf.min_scale, max_scale=None)
    moments = (a.reshape(len(a), -1) for a in (mean, std))
    return own.from_moments(*moments)


def _of_pairs(left, right):
    """Weights of pairs of sums over pairs of products, ``[P, O O', K K', ...]``."""
    shape = [a * b for a, b in zip(left.shape[1:], right.shape[1:], strict=True)]
    for axis in range(1, left.ndim):
        left = jnp.expand_dims(left, 2 * axis)
        right = jnp.expand_dims(right, 2 * axis - 1)
    return (left * right).reshape(-1, *shape)
