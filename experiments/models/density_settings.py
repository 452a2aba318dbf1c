"""The flags of a density and of the flow that lifts it."""

import dataclasses

from experiments.engine import flags


@dataclasses.dataclass(frozen=True)
class DensitySettings:
    """The flags of a density and its flow."""

    density: str = flags.flag(
        "circuit",
        "over the features: circuit (exact, normal leaves), vae (a bound), gaussian "
        "(exact, independent), or kernel (a Gaussian at each of --density_centres "
        "training images: no model, but what models must beat)",
        flags.one_of("circuit", "vae", "gaussian", "kernel"),
        shapes=True,
    )
    flow: str = flags.flag(
        "identity",
        "from values to features: identity, colour (affine, per pixel), patch "
        "(couplings inside squares of pixels) or multi_scale (couplings of the whole "
        "image)",
        flags.one_of("identity", "colour", "patch", "multi_scale"),
        shapes=True,
    )
    flow_patch: int = flags.flag(
        4,
        "side of the squares of --flow=patch in pixels",
        flags.at_least(1),
        shapes=True,
        only={"flow": ["patch"]},
    )
    flow_steps: int = flags.flag(
        4,
        "couplings, of each level with --flow=multi_scale",
        flags.at_least(1),
        shapes=True,
        only={"flow": ["patch", "multi_scale"]},
    )
    flow_filters: int = flags.flag(
        64,
        "units or filters in the couplings' hidden layers",
        flags.at_least(1),
        shapes=True,
        only={"flow": ["patch", "multi_scale"]},
    )
    flow_levels: int | None = flags.flag(
        None,
        "levels of --flow=multi_scale (default: as the sides allow, at most 3)",
        flags.at_least(1),
        kind=int,
        shapes=True,
        only={"flow": ["multi_scale"]},
    )
    preprocess: str = flags.flag(
        "none",
        "before the flow: none, or the logit of every value",
        flags.one_of("none", "logit"),
        shapes=True,
    )
    density_latents: int = flags.flag(
        64,
        "latents of --density=vae",
        flags.at_least(1),
        shapes=True,
        only={"density": ["vae"]},
    )
    density_network: str = flags.flag(
        "conv",
        "networks of --density=vae: fully connected (mlp) or convolutional (conv)",
        flags.one_of("mlp", "conv"),
        shapes=True,
        only={"density": ["vae"]},
    )
    density_width: int | None = flags.flag(
        None,
        "their hidden units, or filters of the first layer (default: as many numbers "
        "to learn as the circuit of the flags has)",
        flags.at_least(1),
        kind=int,
        shapes=True,
        only={"density": ["vae"]},
    )
    density_output: str = flags.flag(
        "mean",
        "what a loss on samples sees of --density=vae: the decoder's mean, as in Lucas "
        "et al., or a sample, with the noise around it",
        flags.one_of("mean", "sample"),
        only={"density": ["vae"]},
    )
    density_centres: int = flags.flag(
        2000,
        "training images of --density=kernel",
        flags.at_least(2),
        shapes=True,
        only={"density": ["kernel"]},
    )
