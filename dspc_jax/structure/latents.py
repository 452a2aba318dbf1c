"""Latent variables inside the region graph of an image."""

from dspc_jax.arguments import shown, whole_number
from dspc_jax.structure.lifted_inputs import lift_inputs
from dspc_jax.structure.region_graph import (
    RegionGraph,
    RegionGraphBuilder,
    Structure,
)


def with_latents(structure: Structure, num_latents: int) -> RegionGraph:
    """A region graph over the variables of ``structure`` and latents, low in its tree.

    The latents are the variables ``V .. V + num_latents - 1``. Each tree of the
    structure (each repetition of a forest) is cut into as many regions as there are
    latents, or into all its input regions if these are fewer: from the root down, the
    largest region is split next. The regions of a cut cover the image without overlap,
    so every input region of the image lies below exactly one of them, and each of them
    gets its own share of the latents, whose sizes differ by at most one:

    - an input region takes them into its scope (a unit is a piece of image *and* its
      code), and a sum layer is put over it, so that the codes of neighboring regions
      are chosen independently;
    - an inner region forms a product with an input region of its latents.

    In a forest, a latent belongs to a different region in each repetition.

    A circuit has C channels for every variable, and so for a latent: it is C real
    numbers (three for a color image), independent given a unit.

    Args:
        structure: `RandomBinaryTrees`, `QuadTree`, or a `RegionGraph` of one or several
            trees mixed at the root.
        num_latents: at least 1.

    Returns:
        The region graph, over V + num_latents variables.

    Raises:
        ValueError: fewer than one latent; or the graph has a region with several
            parents or, below its root, with several partitions.

    References:
        Lang et al. 2022, section 3.3 (one circuit over images and latents).
        Auto-encoding Probabilistic Circuits, 2025 (patches with a latent each).
    """
    num_latents = whole_number("num_latents", num_latents, least=1)
    if isinstance(structure, type) or not hasattr(structure, "region_graph"):
        raise ValueError(
            "structure must be a structure such as QuadTree(28, 28), got "
            f"{shown(structure)}"
        )
    graph = structure.region_graph()
    _check_forest(graph)
    latents = range(graph.num_variables, graph.num_variables + num_latents)
    builder = RegionGraphBuilder(graph.num_variables + num_latents)
    for number in graph.partitions_of[graph.root]:
        _Tree(graph, number, latents, builder).add()
    return lift_inputs(builder.build())


class _Tree:
    """One partition of the root, rebuilt with latents.

    The partition itself plays the part of the tree's own root region, `_TOP`, whose
    scope is the whole image.
    """

    _TOP = -1

    def __init__(self, graph, number, latents, builder):
        self._graph, self._builder = graph, builder
        self._top_children = graph.partitions[number].children
        cut = self._cut(len(latents))
        ends = [i * len(latents) // len(cut) for i in range(len(cut) + 1)]
        self._codes = {
            region: tuple(latents[start:stop])
            for region, start, stop in zip(cut, ends[:-1], ends[1:], strict=True)
        }

    def _children(self, region):
        if region == self._TOP:
            return self._top_children
        numbers = self._graph.partitions_of[region]
        return self._graph.partitions[numbers[0]].children if numbers else ()

    def _scope(self, region):
        if region == self._TOP:
            return tuple(range(self._graph.num_variables))
        return self._graph.scopes[region]

    def _cut(self, size: int) -> list[int]:
        """At most ``size`` regions that cover the image, the largest split first."""
        cut = [self._TOP]
        while True:
            inner = [
                i
                for i, region in enumerate(cut)
                if self._children(region)
                and len(cut) + len(self._children(region)) - 1 <= size
            ]
            if not inner:
                return cut
            largest = max(inner, key=lambda i: len(self._scope(cut[i])))
            cut[largest : largest + 1] = self._children(cut[largest])

    def add(self) -> None:
        """Adds the tree as a partition of the builder's root."""
        children = self._top_children
        if self._TOP in self._codes:
            whole = self._builder.add_region(self._scope(self._TOP))
            self._partition(whole, children)
            codes = self._builder.add_region(self._codes[self._TOP])
            self._builder.add_partition(0, whole, codes)
        else:
            self._partition(0, children)

    def _partition(self, region: int, children) -> None:
        self._builder.add_partition(region, *map(self._region, children))

    def _region(self, region: int) -> int:
        """Adds a region and what is below it; returns its new number."""
        add = self._builder.add_region
        codes = self._codes.get(region)
        children = self._children(region)
        if codes is None and len(children) == 1 and children[0] in self._codes:
            return self._region(children[0])  # it has a sum layer over it anyway
        if codes is None:
            new = add(self._scope(region) + self._below(region))
            if children:
                self._partition(new, children)
            return new
        joint = add(self._scope(region) + codes)
        if not children:
            self._builder.add_partition(joint, add(self._scope(region) + codes))
            return joint
        image = add(self._scope(region))
        self._partition(image, children)
        self._builder.add_partition(joint, image, add(codes))
        return joint

    def _below(self, region: int) -> tuple[int, ...]:
        """The latents at or below a region."""
        if region in self._codes:
            return self._codes[region]
        parts = (self._below(child) for child in self._children(region))
        return tuple(latent for codes in parts for latent in codes)


def _check_forest(graph: RegionGraph) -> None:
    owned: set[int] = set()
    shared: set[int] = set()
    for child in (child for p in graph.partitions for child in p.children):
        (shared if child in owned else owned).add(child)
    if shared:
        raise ValueError(
            "structure must give every region one parent (trees mixed at the root), "
            f"got several for region {min(shared)}"
        )
    for region, numbers in enumerate(graph.partitions_of):
        if region != graph.root and len(numbers) > 1:
            raise ValueError(
                "structure must have several partitions at its root only, got "
                f"{len(numbers)} for region {region}"
            )
