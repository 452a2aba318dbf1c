"""The public bundle: `build` turns a configuration into pure functions."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, Protocol, TypeVar

import jax

from dspc_jax import integral_protocols, protocols, tying
from dspc_jax.arguments import instance, shown, store, whole_number
from dspc_jax.layers import input_layer
from dspc_jax.leaves import DirectLeaf, ExponentialLeaf, Leaf, joining
from dspc_jax.parameters import Layout, table_shapes
from dspc_jax.queries import QUERIES
from dspc_jax.structure.folding import fold
from dspc_jax.structure.lifted_inputs import lift_inputs
from dspc_jax.structure.pairs import in_pairs
from dspc_jax.structure.region_graph import RegionGraph, Structure
from dspc_jax.structure.sums_first import sums_first
from dspc_jax.structure.tied_groups import (
    Groups,
    check_count,
    checked_groups,
    leaf_groups,
    tie_sums,
)

T = TypeVar("T", covariant=True)

SUM_LAYERS = ("tucker", "cp", "cp_t")
"""See `CircuitConfig.sum_layer`."""
MIXING = ("learned", "uniform")
"""See `CircuitConfig.mixing`."""


@dataclasses.dataclass(frozen=True)
class CircuitConfig:
    """Everything that makes a circuit, hashable.

    Attributes:
      structure: `RandomBinaryTrees`, `QuadTree`, any `RegionGraph`, or a type of your
        own with these two members (`dspc_jax.structure.region_graph.Structure`).
      leaf: one leaf family, or a tuple (or list) with one per variable (mixed data).
      num_channels: C; the channels of a variable are independent given a leaf.
      num_leaves: K of input regions.
      num_sums: K of inner regions.
      num_classes: Y, the number of roots.
      sum_layer: what a sum has weights on. ``"tucker"``: all pairs of child units.
        ``"cp_t"``: products unit by unit; products come first, sums after them.
        ``"cp"``: the same with a dense sum over each factor of each product, leaves
        included (`dspc_jax.structure.sums_first`). Names are those of Mari, Vessio and
        Vergari 2023.
      tie_leaves: whose leaves share their parameters: ``"none"``, ``"all"``, or a group
        for each variable.
      tie_sums: whose sums do: ``"none"``, ``"levels"``, or a group for each region of
        the structure.
      mixing: the weights of the partitions of a region of several (the repetitions of
        a forest, the two orders of a quad graph): ``"learned"`` for each unit, or
        ``"uniform"``: equal, without parameters. Those of the classes are learned.

    Raises:
      ValueError: a number is too small or no integer, the sum layer is unknown, a
        structure or a leaf is none (a class in place of an instance), or the tuple of
        leaves does not have one entry per variable.
    """

    structure: Structure
    leaf: Leaf | tuple[Leaf, ...]
    num_channels: int = 1
    num_leaves: int = 16
    num_sums: int = 16
    num_classes: int = 1
    sum_layer: str = "cp_t"
    tie_leaves: Groups = "none"
    tie_sums: Groups = "none"
    mixing: str = "learned"

    def __post_init__(self):
        for name in ("num_channels", "num_leaves", "num_sums", "num_classes"):
            value = whole_number(name, getattr(self, name), least=1)
            store(self, **{name: value})
        if self.sum_layer not in SUM_LAYERS:
            raise ValueError(
                f"sum_layer must be one of {SUM_LAYERS}, got {shown(self.sum_layer)}"
            )
        if self.mixing not in MIXING:
            raise ValueError(
                f"mixing must be one of {MIXING}, got {shown(self.mixing)}"
            )
        structure = self.structure
        if isinstance(structure, type) or not hasattr(structure, "region_graph"):
            raise ValueError(
                "structure must be RandomBinaryTrees(...), QuadTree(...) or a "
                f"RegionGraph, got {shown(structure)}"
            )
        if isinstance(self.leaf, list):
            store(self, leaf=tuple(self.leaf))
        for leaf in self.leaf if isinstance(self.leaf, tuple) else (self.leaf,):
            known = isinstance(leaf, ExponentialLeaf | DirectLeaf)
            if isinstance(leaf, type) or not known:
                raise ValueError(
                    "leaf must be a leaf family such as Normal(), or a tuple of them, "
                    f"got {shown(leaf)}"
                )
        num_variables = self.structure.num_variables
        if isinstance(self.leaf, tuple) and len(self.leaf) != num_variables:
            raise ValueError(
                f"leaf must be a family or a tuple of {num_variables}, one a variable, "
                f"got a tuple of {len(self.leaf)}"
            )
        groups = checked_groups("tie_leaves", self.tie_leaves, ("none", "all"))
        check_count("tie_leaves", groups, num_variables)
        if not isinstance(groups, str):
            leaf_groups(groups, self.leaves)
        sums = checked_groups("tie_sums", self.tie_sums, ("none", "levels"))
        store(self, tie_leaves=groups, tie_sums=sums)

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The family of every variable."""
        if isinstance(self.leaf, tuple):
            return self.leaf
        return (self.leaf,) * self.structure.num_variables

    def build(self) -> "Circuit":
        """The circuit; as `dspc_jax.build`."""
        return _build(self)


def _query() -> Any:
    """A field with a function: it makes circuits different, and no hash."""
    return dataclasses.field(hash=False, repr=False)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Circuit:
    """Pure functions of one circuit; every one takes one example (batch by vmap).

    `dspc_jax.protocols` has their signatures. Circuits of equal configurations are
    equal, so a circuit may be a (static) argument of ``jax.jit``, and a pickle holds
    only the configuration.

    Attributes:
        config: what it was built from.
        layout: the folded structure; `dspc_jax.parameter_rows` says whose parameters
            are where.
        init: random parameters, or such as start at data.
        log_prob: log-likelihood and marginals.
        class_log_probs: the same given each class.
        joint_log_probs: those of the example and each class.
        class_posterior: probabilities of the classes given the example.
        sample: exact samples, ancestral or conditional.
        sample_differentiable: samples with gradients to the parameters.
        mpe: a most probable explanation, by max-product or better.
        mean: exact conditional means.
        covariance: exact conditional covariances.
        expectation: those of products of functions of one variable each.
        event_log_prob: log-probabilities of intervals and sets.
    """

    config: CircuitConfig
    layout: Layout = dataclasses.field(compare=False, repr=False)
    init: protocols.Init = _query()
    log_prob: protocols.LogProb = _query()
    class_log_probs: protocols.ClassLogProbs = _query()
    joint_log_probs: protocols.JointLogProbs = _query()
    class_posterior: protocols.ClassPosterior = _query()
    sample: protocols.Sample = _query()
    sample_differentiable: protocols.SampleDifferentiable = _query()
    mpe: protocols.Mpe = _query()
    mean: protocols.Mean = _query()
    covariance: integral_protocols.Covariance = _query()
    expectation: integral_protocols.Expectation = _query()
    event_log_prob: integral_protocols.EventLogProb = _query()

    def __reduce__(self):
        """Pickles the configuration, and the functions that were replaced."""
        built = self.config.build()
        replaced = {
            query.__name__: getattr(self, query.__name__)
            for query in QUERIES
            if getattr(self, query.__name__) != getattr(built, query.__name__)
        }
        return _rebuild, (self.config, replaced)


def _rebuild(config: CircuitConfig, replaced: dict[str, Any]) -> Circuit:
    circuit = config.build()
    return dataclasses.replace(circuit, **replaced) if replaced else circuit


@dataclasses.dataclass(frozen=True, repr=False)
class _Bound:
    """A query of one circuit."""

    query: Callable[..., Any]
    config: CircuitConfig
    layout: Layout = dataclasses.field(compare=False)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.query(self.layout, *args, **options)

    def __repr__(self):
        return f"<{self.query.__name__} of {self.config}>"

    def __reduce__(self):
        return getattr, (self.config.build(), self.query.__name__)


class Buildable(Protocol[T]):
    """A configuration, of a circuit or of one behind a flow."""

    def build(self) -> T:
        """What it is the configuration of."""
        ...


def build(config: Buildable[T]) -> T:
    """Builds a circuit; equal configurations give the same function objects.

    Args:
        config: a `CircuitConfig`, or the configuration of a transformed circuit; it has
            been checked when it was made.

    Returns:
        The circuit. The last 64 are kept.

    Raises:
        ValueError: the structure's region graph is not smooth or not decomposable, or
            the configuration is none.
    """
    if isinstance(config, type) or not hasattr(config, "build"):
        instance("config", config, CircuitConfig)
    return config.build()


@functools.lru_cache(maxsize=64)
def _build(config: CircuitConfig) -> Circuit:
    layout = make_layout(config)
    bound = {
        query.__name__: protocols.described(
            Circuit, query.__name__, _Bound(query, config, layout)
        )
        for query in QUERIES
    }
    return Circuit(config=config, layout=layout, **bound)


def make_layout(config: CircuitConfig) -> Layout:
    """The static side of a circuit: its folded region graph, leaves and sizes."""
    graph = fold(product_graph(config), ragged=config.sum_layer != "tucker")
    groups = leaf_groups(config.tie_leaves, config.leaves)
    # Joined leaves may be parted where they are equal, and those of a group be, too.
    parts = None if groups is None else joining.equal(config.leaves)
    blocks = input_layer.make_blocks(graph.input_scopes, config.leaves, parts)
    layout = Layout(
        graph=graph,
        blocks=blocks,
        num_channels=config.num_channels,
        num_leaves=config.num_leaves,
        num_sums=config.num_sums,
        num_classes=config.num_classes,
        sum_layer="tucker" if config.sum_layer == "tucker" else "hadamard",
        mixing=config.mixing,
    )
    if groups is not None:
        tied = tuple(tying.tied(block, groups) for block in blocks)
        layout = dataclasses.replace(layout, tied_leaves=tied)
    if config.tie_sums != "none":
        count = len(config.structure.region_graph().scopes)
        ties = tie_sums(config.tie_sums, graph, count, table_shapes(layout))
        layout = dataclasses.replace(layout, tied_sums=ties)
    return layout


def product_graph(config: CircuitConfig) -> RegionGraph:
    """The region graph whose products are those of the circuit, one by one.

    Products unit by unit have any number of factors, leaves and sums if these are
    equally many. For all pairs of units, and for leaves of another number, the graph
    gets more regions, with sum layers of their own.

    Args:
        config: of the circuit.

    Returns:
        The graph, what is added at the ends of its lists.
    """
    graph = config.structure.region_graph()
    if config.sum_layer == "cp":
        graph = sums_first(graph)
    if config.sum_layer == "tucker":
        graph = in_pairs(graph)
    if config.sum_layer == "tucker" or config.num_leaves != config.num_sums:
        graph = lift_inputs(graph)
    return graph
