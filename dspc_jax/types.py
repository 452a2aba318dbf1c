"""Shared type aliases, and the names of array axes in all shape comments.

Axes, in the order in which arrays carry them:

====  ==================================================================
G     regions of a level, folded (all same-shaped regions are one array)
P     partitions of a level, folded
K     units of a region (leaves of an input region, sums of an inner one)
O     output units of a sum layer
Y     classes (roots)
V     variables (pixels)
C     channels of a variable
L     variables of one input region, padded to the largest region
N     examples; always the last axis inside the library
====  ==================================================================

A public function takes one example, so the axis N appears only inside
(see `dspc_jax.ops.batching`).
"""

from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
"""A typed key from ``jax.random.key``."""
Metrics: TypeAlias = dict[str, jax.Array]
PyTree: TypeAlias = Any
