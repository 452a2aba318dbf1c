"""The flags of the circuit that every program has."""

import dataclasses

from experiments.engine.flag_fields import flag
from experiments.engine.requirements import above, at_least, one_of

_FOREST = {"structure": ["random_binary_trees"]}


@dataclasses.dataclass(frozen=True)
class CircuitSettings:
    """The structure, the sizes and the leaves of a circuit."""

    structure: str = flag(
        "quad_tree",
        "region graph: quad_tree lets neighboring pixels meet first, quad_graph in two "
        "orders, random_binary_trees is the paper's; hidden_chow_liu is learned from "
        "the training data: for tables",
        one_of("random_binary_trees", "quad_tree", "quad_graph", "hidden_chow_liu"),
        shapes=True,
    )
    depth: int = flag(
        4, "depth of random_binary_trees", at_least(1), shapes=True, only=_FOREST
    )
    num_repetitions: int = flag(
        10, "number of random_binary_trees", at_least(1), shapes=True, only=_FOREST
    )
    structure_seed: int = flag(
        0,
        "seed of the partitions of random_binary_trees, shared by all seeds",
        at_least(0),
        shapes=True,
        only=_FOREST,
    )
    num_sums: int = flag(64, "sum units a region", at_least(1), shapes=True)
    num_leaves: int = flag(
        64, "leaf distributions a variable", at_least(1), shapes=True
    )
    num_classes: int = flag(
        1, "roots, mixed with equal weights at the start", at_least(1), shapes=True
    )
    labels: str = flag(
        "unused",
        "unused, or roots: a root for each class of the data, trained by the joint "
        "likelihood of image and label (--num_classes is then the data's)",
        one_of("unused", "roots"),
        shapes=True,
    )
    sum_layer: str = flag(
        "cp_t",
        "tucker: weights on all pairs of units; cp_t: one a product; cp: the same, "
        "with a sum over each factor of a product, leaves included",
        one_of("tucker", "cp", "cp_t"),
        shapes=True,
    )
    tie_leaves: str = flag(
        "none",
        "all: the leaves of all variables (pixels, say) share their parameters",
        one_of("none", "all"),
        shapes=True,
    )
    tie_sums: str = flag(
        "none",
        "levels: regions of one shape and level share the weights of their sums, as in "
        "a convolution",
        one_of("none", "levels"),
        shapes=True,
        only={"structure": ["quad_tree", "quad_graph"]},
    )
    mixing: str = flag(
        "learned",
        "weights of the partitions of a region of several: learned, or uniform: equal, "
        "without parameters",
        one_of("learned", "uniform"),
        shapes=True,
        only={"structure": ["quad_graph", "random_binary_trees"]},
    )
    leaf: str = flag(
        "normal",
        "leaf distribution",
        one_of(
            "binomial", "normal", "bernoulli", "categorical", "discretized_logistic"
        ),
        shapes=True,
    )
    colors: str = flag(
        "rgb",
        "channels of the leaves: rgb, or ycocg: brightness and two differences, "
        "lossless (YCoCg-R); the bits compare",
        one_of("rgb", "ycocg"),
        shapes=True,
    )
    wavelets: str = flag(
        "none",
        "legall (that of JPEG 2000) or haar: leaves over lossless wavelets in place of "
        "pixels; the bits compare, and no part of an image can be completed",
        one_of("none", "haar", "legall"),
        shapes=True,
    )
    channels: str = flag(
        "leaves",
        "channels of a pixel: leaves, independent given a unit, or variables of their "
        "own, which meet first",
        one_of("leaves", "variables"),
        shapes=True,
        only={"structure": ["quad_tree", "quad_graph"]},
    )
    leaf_min_scale: float = flag(
        0.02,
        "least deviation of a normal leaf; images have values in [0, 1]",
        above(0),
        shapes=True,
        only={"leaf": ["normal"]},
    )
    leaf_max_scale: float = flag(
        1.0,
        "greatest deviation of a normal leaf",
        above(0),
        shapes=True,
        only={"leaf": ["normal"], "adv_discriminator": ["circuit"]},
    )
    leaf_noise: str = flag(
        "deviation",
        "noise of a differentiable binomial sample: its standard deviation, or the "
        "variance in its place, the paper's error, for ablations",
        one_of("deviation", "variance"),
        only={"leaf": ["binomial"]},
    )
