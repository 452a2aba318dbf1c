"""Region graphs of images, whose regions are rectangles of neighboring pixels.

Variable ``row * width + column`` is a pixel, unless channels are variables. Any height
and width will do. An input region that meets larger ones has a sum layer of its own,
where products are of two.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from dspc_jax.arguments import shown, store, whole_number, whole_numbers
from dspc_jax.structure.channels import with_channels
from dspc_jax.structure.lifted_inputs import lift_inputs
from dspc_jax.structure.region_graph import RegionGraph, RegionGraphBuilder

_MOST_PARTITIONS = 200_000
_MOST_ENTRIES = 2**25
"""Variables in all regions together: 256 MiB of scopes."""


@dataclasses.dataclass(frozen=True)
class _Image:
    """What all structures of images have."""

    height: int
    width: int

    def __post_init__(self):
        self._store_sizes("height", "width")

    def _store_sizes(self, *names: str) -> None:
        for name in names:
            store(self, **{name: whole_number(name, getattr(self, name), least=1)})

    @property
    def num_variables(self) -> int:
        """V, the number of pixels."""
        return self.height * self.width


@dataclasses.dataclass(frozen=True)
class QuadTree(_Image):
    """The image quad tree: neighboring pixels meet first.

    With ``arity=2`` a rectangle is halved across its longer side (height first on a
    tie) until it holds a single pixel; two such cuts are one step of a quad tree. With
    ``arity=4`` every side is halved at once, so a region is the product of up to four.
    (For pairs of units, ``sum_layer="tucker"``, four become two rows of two, each with
    a sum layer: on a square whose side is a power of two, the circuit of ``arity=2``.)

    Attributes:
        height: rows.
        width: columns.
        leaf_size: a rectangle with both sides at most this long is an input region.
        arity: 2 or 4, into how many a rectangle is cut at most.
        channels: C, of a pixel that is C variables; they meet first, before pixels do.
            Variable ``(row * width + column) * C + c`` is a channel. (The circuit then
            has ``num_channels=1``, and data are ``[V * C, 1]``.)

    Raises:
        ValueError: a side is smaller than 1, or another arity.

    References:
        Mari, Vessio and Vergari, "Unifying and understanding overparameterized circuit
        representations via low-rank tensor decompositions", TPM 2023 (quad trees).
    """

    leaf_size: int = 1
    arity: int = 2
    channels: int = 1

    def __post_init__(self):
        self._store_sizes("height", "width", "leaf_size", "arity", "channels")
        if self.arity not in (2, 4):
            raise ValueError(f"arity must be 2 or 4, got {self.arity}")

    @property
    def num_variables(self) -> int:
        """V, the number of pixels times that of channels."""
        return self.height * self.width * self.channels

    @functools.lru_cache(maxsize=16)  # noqa: B019 (frozen and small)
    def region_graph(self) -> RegionGraph:
        """The region graph; the same object for the same numbers."""
        builder = _RectangleBuilder(self.height, self.width)
        rectangles = [builder.whole]
        while rectangles:
            rectangle = rectangles.pop()
            sides = rectangle.sides(self.leaf_size)
            if self.arity == 2 and sides:
                sides = (max(sides, key=rectangle.length),)
            pieces = [rectangle]
            for side in sides:
                pieces = [half for piece in pieces for half in piece.halves(side)]
            if sides:
                builder.add_partition(rectangle, *pieces)
                rectangles += pieces
        graph = with_channels(builder.build(), self.channels)
        return lift_inputs(graph) if self.arity == 2 else graph


@dataclasses.dataclass(frozen=True)
class QuadGraph(_Image):
    """Quad trees of one image, mixed: rows first or columns first, at every step.

    A rectangle is cut into 2x2 in two ways, which are mixed: into an upper and a lower
    half, each then cut into left and right, or the other way round. The four pieces are
    the same regions both times, so there is one region for each rectangle. A side of
    one pixel is not cut, so a line has one partition only.

    Attributes:
        height: rows.
        width: columns.
        leaf_size: a side at most this long is not cut; a rectangle of two such sides is
            an input region.
        channels: C, of a pixel that is C variables; they meet first, before pixels do.
            Variable ``(row * width + column) * C + c`` is a channel. (The circuit then
            has ``num_channels=1``, and data are ``[V * C, 1]``.)

    Raises:
        ValueError: a side is smaller than 1.

    References:
        Mari, Vessio and Vergari, "Unifying and understanding overparameterized circuit
        representations via low-rank tensor decompositions", TPM 2023 (quad graphs).
    """

    leaf_size: int = 1
    channels: int = 1

    def __post_init__(self):
        self._store_sizes("height", "width", "leaf_size", "channels")

    @property
    def num_variables(self) -> int:
        """V, the number of pixels times that of channels."""
        return self.height * self.width * self.channels

    @functools.lru_cache(maxsize=16)  # noqa: B019 (frozen and small)
    def region_graph(self) -> RegionGraph:
        """The region graph; the same object for the same numbers."""
        builder = _RectangleBuilder(self.height, self.width)
        known = {builder.whole}
        pending = [(builder.whole, builder.whole.sides(self.leaf_size))]
        while pending:
            rectangle, sides = pending.pop()
            for side in sides:
                halves = rectangle.halves(side)
                builder.add_partition(rectangle, *halves)
                rest = tuple(other for other in sides if other != side)
                pending += [
                    (half, rest or half.sides(self.leaf_size))
                    for half in halves
                    if half not in known
                ]
                known.update(halves)
        return lift_inputs(with_channels(builder.build(), self.channels))


@dataclasses.dataclass(frozen=True)
class PoonDomingos(_Image):
    """All rectangles between cuts at multiples of a distance, cut in all ways.

    A region is cut at every multiple of ``delta``, counted from the image's corner,
    that runs through it, in rows and in columns; these partitions are mixed. There is
    one region for each rectangle. An image of n x n cells of ``delta`` has about
    ``n**4 / 4`` regions and ``n**5 / 6`` partitions.

    Attributes:
        height: rows.
        width: columns.
        delta: distance of neighboring cuts in pixels, or several, from coarse to fine:
            rectangles through which no cut of one runs are cut by the next. Rectangles
            without cuts are input regions.

    Raises:
        ValueError: a side or a distance is smaller than 1, distances that do not
            descend; `region_graph`: more than 200,000 partitions, or regions that have
            more than 2**25 variables together.

    References:
        Poon and Domingos, "Sum-product networks: a new deep architecture", UAI 2011.
        Peharz et al., "Einsum networks", ICML 2020 (several distances).
    """

    delta: int | tuple[int, ...]

    def __post_init__(self):
        super().__post_init__()
        if np.ndim(self.delta) == 0:
            self._store_sizes("delta")
            return
        deltas = whole_numbers("delta", self.delta)
        descending = all(a > b for a, b in zip(deltas, deltas[1:], strict=False))
        if not deltas or deltas[-1] < 1 or not descending:
            raise ValueError(
                "delta must be a distance of at least 1, or several that descend, got "
                f"{shown(deltas)}"
            )
        store(self, delta=deltas)

    @functools.lru_cache(maxsize=16)  # noqa: B019 (frozen and small)
    def region_graph(self) -> RegionGraph:
        """The region graph; the same object for the same numbers."""
        cuts = self._cuts()
        builder = _RectangleBuilder(self.height, self.width)
        for rectangle, pairs in cuts.items():
            for pair in pairs:
                builder.add_partition(rectangle, *pair)
        return lift_inputs(builder.build())

    def _cuts(self) -> dict["_Rectangle", list[tuple["_Rectangle", "_Rectangle"]]]:
        """All rectangles, with the pairs that they are cut into; checks how many."""
        deltas = self.delta if isinstance(self.delta, tuple) else (self.delta,)
        pending = [_Rectangle(0, self.height, 0, self.width)]
        cuts = dict.fromkeys(pending, [])
        num_partitions = num_entries = 0
        while pending:
            rectangle = pending.pop()
            choices = (
                [rectangle.multiples(side, delta) for side in (0, 1)]
                for delta in deltas
            )
            places = next(filter(any, choices), [range(0)] * 2)
            num_partitions += sum(map(len, places))
            num_entries += rectangle.length(0) * rectangle.length(1)
            if num_partitions > _MOST_PARTITIONS or num_entries > _MOST_ENTRIES:
                raise ValueError(
                    f"delta must give at most {_MOST_PARTITIONS} partitions, and "
                    f"regions of {_MOST_ENTRIES} variables together, got more with "
                    f"{self.delta} on {self.height}x{self.width} pixels"
                )
            cuts[rectangle] = [
                rectangle.cut(side, at) for side in (0, 1) for at in places[side]
            ]
            parts = (part for pair in cuts[rectangle] for part in pair)
            new = dict.fromkeys((part for part in parts if part not in cuts), [])
            cuts |= new
            pending += new
        return cuts


class _Rectangle(NamedTuple):
    """Rows ``top <= row < bottom`` and columns ``left <= column < right``."""

    top: int
    bottom: int
    left: int
    right: int

    def length(self, side: int) -> int:
        """Its height (side 0) or its width (side 1)."""
        return self[2 * side + 1] - self[2 * side]

    def sides(self, longest: int) -> tuple[int, ...]:
        """The sides that are longer than this."""
        return tuple(side for side in (0, 1) if self.length(side) > longest)

    def cut(self, side: int, at: int) -> tuple["_Rectangle", "_Rectangle"]:
        """The two parts before and from this row (side 0) or column (side 1)."""
        if side == 0:
            return self._replace(bottom=at), self._replace(top=at)
        return self._replace(right=at), self._replace(left=at)

    def halves(self, side: int) -> tuple["_Rectangle", "_Rectangle"]:
        """Two halves; the first is longer by one where they differ."""
        return self.cut(side, self[2 * side] + (self.length(side) + 1) // 2)

    def multiples(self, side: int, delta: int) -> range:
        """The multiples of ``delta`` at which the side can be cut."""
        return range((self[2 * side] // delta + 1) * delta, self[2 * side + 1], delta)


class _RectangleBuilder:
    """A region graph whose regions are rectangles, one for each that is named."""

    def __init__(self, height: int, width: int):
        self.whole = _Rectangle(0, height, 0, width)
        self._graph = RegionGraphBuilder(height * width)
        self._pixels = np.arange(height * width).reshape(height, width)
        self._regions = {self.whole: 0}

    def add_partition(self, rectangle: _Rectangle, *parts: _Rectangle) -> None:
        """Lets a rectangle be the product of others."""
        self._graph.add_partition(*map(self._region, (rectangle, *parts)))

    def _region(self, rectangle: _Rectangle) -> int:
        if rectangle not in self._regions:
            top, bottom, left, right = rectangle
            pixels = self._pixels[top:bottom, left:right]
            self._regions[rectangle] = self._graph.add_region(pixels)
        return self._regions[rectangle]

    def build(self) -> RegionGraph:
        """The finished graph; an image that is not cut has a sum layer over it."""
        if not self._graph.partitions:
            self._graph.add_partition(0, self._graph.add_region(self._pixels))
        return self._graph.build()
