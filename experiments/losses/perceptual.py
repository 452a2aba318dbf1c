"""A loss on samples as trained classifiers see them: on their features, not pixels.

References:
    dos Santos et al., "Learning implicit generative models by matching perceptual
    features", ICCV 2019 (features of fixed networks, first and second moments).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.networks import mlp_discriminator
from dspc_jax.networks.discriminators import Discriminator
from dspc_jax.objectives import Kernel, gaussian_kernel, median_bandwidths
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.losses.mixture import Term
from experiments.models import circuit as model
from experiments.models import classifier
from experiments.models.features import outputs_of, read_classifier

_MIN_DEVIATION = 0.01  # of a feature that is almost never active

See = Callable[[jax.Array], jax.Array]
"""Grey values ``[B, V, C]`` to features ``[B, D]``, differentiable."""


def classifier_features(
    workdir: str | None, flags: tuple[str, str], dataset: Dataset, data_dir: str | None
) -> See:
    """The hidden layers of classifiers that are not trained any more.

    A circuit learns to deceive a single network rather than to draw better; networks of
    several seeds are harder to deceive at once.

    Args:
        workdir: the folder of a run of `experiments.classifier`; all its seeds are
            asked, their features side by side.
        flags: the flag that names it and the one that asks for it, for errors.
        dataset: the images.
        data_dir: folder of the data set's files.

    Returns:
        The map.

    Raises:
        UserError: no classifier that can see these images is named.
    """
    flag, chosen_by = flags
    if workdir is None:
        raise UserError(f"--{flag} must be given with --{chosen_by}=classifier")
    trained = read_classifier(workdir, flag, dataset, data_dir)
    networks = outputs_of(trained, dataset)
    return lambda x: jnp.concatenate([outputs(x)[0] for outputs in networks], axis=-1)


def feature_kernel(see: See, dataset: Dataset) -> Kernel:
    """Gaussian kernels scaled to the distances between training images' features."""
    levels = jnp.asarray(model.references(dataset))
    bandwidths = median_bandwidths(jax.jit(see)(classifier.to_unit(dataset, levels)))
    return gaussian_kernel(np.asarray(bandwidths).tolist())


def feature_discriminator(see: See, dataset: Dataset) -> Discriminator:
    """A small network on features: it need not learn to see, only to tell apart.

    Args:
        see: the map; each feature is centred and scaled to training images first.
        dataset: the images.

    Returns:
        A `Discriminator` of grey values ``[B, V, C]``: two hidden layers of 128 units
        on their features, with spectral normalisation, without dropout.

    References:
        Sauer et al., "Projected GANs converge faster", NeurIPS 2021 (discriminators on
        features of fixed networks).
    """
    levels = jnp.asarray(model.references(dataset))
    points = np.asarray(jax.jit(see)(classifier.to_unit(dataset, levels)))
    mean, deviation = points.mean(0), np.maximum(points.std(0), _MIN_DEVIATION)
    network = mlp_discriminator(
        points.shape[1],
        value_range=None,
        hidden_sizes=(128, 128),
        dropout_rate=0.0,
        spectral=True,
    )

    def inputs(x):
        return ((see(x) - mean[None]) / deviation[None])[..., None]

    return Discriminator(
        init=network.init,
        logits=lambda params, x: network.logits(params, inputs(x)),
        train_logits=lambda key, params, x: network.train_logits(
            key, params, inputs(x)
        ),
    )


def through(see: See, term: Term) -> Term:
    """A term of the mixture that gets features in the place of grey values.

    Args:
        see: the map.
        term: nothing is trained in it.

    Returns:
        The term; what it draws is differentiated through the map.
    """

    def loss(params, key, x, adversary, sample):
        def draw(keys, params):
            return see(sample(keys, params))

        return term.loss(params, key, see(x), adversary, draw)

    def advantages(x, samples, adversary):
        assert term.advantages is not None
        return term.advantages(see(x), see(samples), adversary)

    return term._replace(
        loss=loss, advantages=None if term.advantages is None else advantages
    )
