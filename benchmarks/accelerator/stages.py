"""The stages, the most valuable first, and the time that each may take."""

from typing import NamedTuple


class Stage(NamedTuple):
    """A row of the table.

    Attributes:
        module: its module in this package, with ``measurements(job)``.
        seconds: its time limit.
        silence: seconds without a result after which its process is stopped; it begins
            anew after the measurement that hung.
        help: what it measures.
    """

    module: str
    seconds: float
    silence: float
    help: str


STAGES = {
    "device": Stage(
        "correctness",
        75,
        45,
        "versions, memory, measured peaks; likelihoods, marginals and samples against "
        "enumeration; float32 products and an image's likelihood against float64",
    ),
    "speed": Stage(
        "speed",
        150,
        75,
        "likelihood, its gradient step, EM step, exact and differentiable sampling, "
        "batch 512, 28x28, K = 256, 64, 512, Categorical(256) and Normal leaves: "
        "median time, share of the device's FLOP rate and bandwidth",
    ),
    "mnist": Stage(
        "mnist",
        280,
        200,
        "a quad graph of 256 units on MNIST by the recipe, three epochs and what "
        "three minutes allow: bits per dimension, sample grids",
    ),
    "pyjuice": Stage(
        "peer",
        75,
        60,
        "PyJuice on the same quad tree and batch, where it is installed: likelihood, "
        "EM step, sampling, with recorded CUDA graphs",
    ),
    "cifar10": Stage(
        "cifar",
        170,
        170,
        "CIFAR-10, where its archive is: a circuit, and one behind a multi-scale flow, "
        "two minutes",
    ),
    "hybrid": Stage(
        "hybrid",
        240,
        120,
        "MMD on a classifier's features beside the likelihood, against likelihood "
        "alone, from one start on MNIST: bits, Frechet and kernel distance",
    ),
}
