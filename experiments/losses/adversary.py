"""The discriminator that the flags ask for, against circuits and networks alike."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import optax

import dspc_jax as pc
from dspc_jax.interfaces import Discriminator
from dspc_jax.networks import (
    convolutional_discriminator,
    feature_discriminator,
    mlp_discriminator,
)
from dspc_jax.objectives import (
    ADVERSARIAL_LOSSES,
    AUGMENTATIONS,
    augment_images,
    class_discriminator,
    density_ratio_discriminator,
)
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.engine.requirements import Requirement
from experiments.losses import perceptual
from experiments.losses.discriminator import discriminator_term
from experiments.losses.term import Term
from experiments.models import circuit as model
from experiments.models.generators import Generator

_CIRCUIT_MIN_SCALE = 0.1  # gray values; a narrower leaf's score is too steep to follow
# Tuned on digits, from a circuit that the likelihood has trained; mlp's is the paper's.
_RATES = {
    "mlp": 2e-4,
    "conv": 2e-3,
    "classifier": 1e-3,
    "efficientnet": 1e-3,
    "circuit": 0.03,
    "self": 3e-3,
}
_R1_WEIGHTS = {
    "mlp": 0.1,
    "conv": 0.1,
    "classifier": 0.1,
    "efficientnet": 0.1,
    "circuit": 1e-4,
    "self": 0.0,
}


def _words(numbers: dict[str, float]) -> str:
    return ", ".join(f"{number} for {name}" for name, number in numbers.items())


def _policy(text: str) -> tuple[str, ...]:
    """The augmentations that ``--adv_augment`` names."""
    if text == "none":
        return ()
    return AUGMENTATIONS if text == "all" else tuple(text.split(","))


@dataclasses.dataclass(frozen=True)
class AdversarySettings:
    """The flags of a discriminator."""

    adv_loss: str = flags.flag(
        "vanilla",
        "vanilla (non-saturating), minmax (the paper's formula), log_ratio (minus the "
        "samples' logit) or hinge",
        flags.one_of(*ADVERSARIAL_LOSSES),
        only={"sample_loss": ["adv"]},
    )
    adv_discriminator: str = flags.flag(
        "conv",
        "who tells samples from data: mlp (the paper's network), conv (convolutions "
        "with spectral normalization), classifier (a network on the features of "
        "trained classifiers, which stay as they are), efficientnet (the same on those "
        "of an EfficientNet-Lite), circuit (one with a root for data and one for "
        "samples), self (the trained circuit's own density against that of a copy)",
        flags.one_of("mlp", "conv", "classifier", "efficientnet", "circuit", "self"),
        only={"sample_loss": ["adv"]},
    )
    adv_classifier: str | None = flags.flag(
        None,
        "folder of a run of experiments.classifier, on this data set or one like it, "
        "for --adv_discriminator=classifier",
        kind=flags.local_path,
        only={"adv_discriminator": ["classifier"]},
    )
    adv_efficientnet: str | None = flags.flag(
        None,
        "lite0, lite1 or lite2, with weights of ImageNet (from the extra 'features'), "
        "for --adv_discriminator=efficientnet; another one may judge the run",
        flags.one_of("lite0", "lite1", "lite2"),
        kind=str,
        only={"adv_discriminator": ["efficientnet"]},
    )
    adv_steps: int = flags.flag(
        1,
        "steps of the discriminator before each of the generator",
        flags.at_least(1),
        only={"sample_loss": ["adv"]},
    )
    adv_every: int = flags.flag(
        1,
        "train the discriminator before every so many steps of the generator only",
        flags.at_least(1),
        only={"sample_loss": ["adv"]},
    )
    adv_learning_rate: float | None = flags.flag(
        None,
        f"step size of the discriminator's Adam (default: {_words(_RATES)})",
        flags.above(0),
        kind=float,
        only={"sample_loss": ["adv"]},
    )
    adv_r1_weight: float | None = flags.flag(
        None,
        "weight of R1, half the squared gradient of the logit at data (default: "
        f"{_words(_R1_WEIGHTS)})",
        flags.at_least(0),
        kind=float,
        only={"sample_loss": ["adv"]},
    )
    adv_gradient_penalty: float = flags.flag(
        0.0,
        "weight of the penalty on gradients whose norm is not 1, between data and "
        "samples",
        flags.at_least(0),
        only={"sample_loss": ["adv"]},
    )
    adv_augment: str = flags.flag(
        "none",
        "differentiable augmentation of what the discriminator sees: none, all, or "
        f"some of {','.join(AUGMENTATIONS)}, joined by commas",
        Requirement(
            lambda v: set(_policy(v)) <= set(AUGMENTATIONS),
            f"must be none, all, or some of {','.join(AUGMENTATIONS)}",
        ),
        only={"sample_loss": ["adv"]},
    )
    adv_filters: int = flags.flag(
        16,
        "filters of conv's first convolution",
        flags.at_least(1),
        only={"adv_discriminator": ["conv"]},
    )
    adv_dropout: float = flags.flag(
        0.3,
        "dropout rate of mlp in training",
        Requirement(lambda v: 0 <= v < 1, "must be at least 0 and less than 1"),
        only={"adv_discriminator": ["mlp"]},
    )
    adv_units: int = flags.flag(
        16,
        "units a region of the circuit that discriminates",
        flags.at_least(1),
        only={"adv_discriminator": ["circuit"]},
    )


def adversarial_term(
    settings: Settings,
    adversary_settings: AdversarySettings,
    dataset: Dataset,
    generator: Generator,
) -> Term:
    """The discriminator's loss and the generator's as a term of the mixture.

    Args:
        settings: the shared flags; they shape a discriminating circuit.
        adversary_settings: the flags of the discriminator.
        dataset: the images.
        generator: what it is trained against.

    Returns:
        The term, ``adv`` in the metrics.

    Raises:
        UserError: the discriminator does not fit the generator or the images.
    """
    adv = adversary_settings
    name, rate, r1_weight = (
        adv.adv_discriminator,
        adv.adv_learning_rate,
        adv.adv_r1_weight,
    )
    augment = None
    if policy := _policy(adv.adv_augment):
        augment = functools.partial(
            augment_images, height=dataset.height, width=dataset.width, policy=policy
        )
    return discriminator_term(
        _own_density(settings, generator)
        if name == "self"
        else _independent(settings, adv, dataset),
        # 0.5: the source's
        optax.adam(_RATES[name] if rate is None else rate, b1=0.5),
        loss=adv.adv_loss,
        num_steps=adv.adv_steps,
        period=adv.adv_every,
        augment=augment,
        r1_weight=_R1_WEIGHTS[name] if r1_weight is None else r1_weight,
        gradient_penalty_weight=adv.adv_gradient_penalty,
        has_noise=name == "mlp" and adv.adv_dropout > 0,
    )


def _independent(
    settings: Settings, adv: AdversarySettings, dataset: Dataset
) -> Discriminator:
    """A discriminator that knows the generator by its samples alone."""
    num_variables, num_channels = dataset.train.shape[1:]
    if adv.adv_discriminator == "mlp":
        return mlp_discriminator(
            num_variables, num_channels, dropout_rate=adv.adv_dropout
        )
    if adv.adv_discriminator == "classifier":
        features = perceptual.classifier_features(
            adv.adv_classifier,
            ("adv_classifier", "adv_discriminator"),
            dataset,
            settings.data_dir,
        )
        return feature_discriminator(features, perceptual.references(dataset))
    if adv.adv_discriminator == "efficientnet":
        features = perceptual.efficientnet_features(
            adv.adv_efficientnet, ("adv_efficientnet", "adv_discriminator"), dataset
        )
        return feature_discriminator(features, perceptual.references(dataset))
    if adv.adv_discriminator == "conv":
        return convolutional_discriminator(
            dataset.height, dataset.width, num_channels, num_filters=adv.adv_filters
        )
    circuit = model.make_model(
        dataclasses.replace(
            settings,
            leaf="normal",
            leaf_min_scale=_CIRCUIT_MIN_SCALE,
            leaf_max_scale=max(1.0, settings.leaf_max_scale),
            num_classes=2,
            num_sums=adv.adv_units,
            num_leaves=adv.adv_units,
        ),
        dataset,
    )
    return class_discriminator(
        circuit.circuit.class_log_probs,
        lambda key: model.init(circuit, key)["circuit"],
    )


def _own_density(
    settings: Settings, generator: Generator
) -> Callable[[Any], Discriminator]:
    """The generator's circuit against a copy of it that is trained one step ahead."""
    circuit = generator.circuit
    if circuit is None:
        raise UserError(
            "--adv_discriminator must be mlp, conv, classifier, efficientnet or "
            "circuit for a generator without likelihood, got 'self'"
        )
    if isinstance(circuit.circuit.config.leaves[0], pc.Categorical):
        raise UserError(
            "--leaf must have a density that is differentiable in its value with "
            f"--adv_discriminator=self, got {settings.leaf!r}"
        )

    def log_prob(params, x):
        return circuit.circuit.log_prob(params, circuit.codec.from_unit(x))

    def compared_with(params):
        return density_ratio_discriminator(
            log_prob, params, lambda key: generator.init(key)["circuit"]
        )

    return compared_with
