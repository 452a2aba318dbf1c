"""A loss on samples as a trained classifier sees them: on its features, not pixels.

References:
    dos Santos et al., "Learning implicit generative models by matching perceptual
    features", ICCV 2019 (features of fixed networks, first and second moments).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax.objectives import Kernel, gaussian_kernel, median_bandwidths
from experiments import classifier, model
from experiments.data import Dataset
from experiments.errors import UserError
from experiments.features import trained_classifiers
from experiments.mixture import Term

See = Callable[[jax.Array], jax.Array]
"""Grey values ``[B, V, C]`` to features ``[B, D]``, differentiable."""


def classifier_features(
    workdir: str | None, dataset: Dataset, data_dir: str | None
) -> See:
    """The hidden layers of classifiers that are not trained any more.

    A circuit learns to deceive a single network rather than to draw better; networks of
    several seeds are harder to deceive at once.

    Args:
        workdir: the folder of a run of `experiments.classifier`; all its seeds are
            asked, their features side by side.
        dataset: the images.
        data_dir: folder of the data set's files.

    Returns:
        The map.

    Raises:
        UserError: no classifier that can see these images is named.
    """
    if workdir is None:
        raise UserError("--mmd_classifier must be given with --mmd_kernel=classifier")
    _, networks = trained_classifiers(workdir, "mmd_classifier", dataset, data_dir)
    return lambda x: jnp.concatenate([of(x)[0] for of in networks], axis=-1)


def feature_kernel(see: See, dataset: Dataset) -> Kernel:
    """Gaussian kernels scaled to the distances between training images' features."""
    levels = jnp.asarray(model.references(dataset))
    bandwidths = median_bandwidths(see(classifier.to_unit(dataset, levels)))
    return gaussian_kernel(np.asarray(bandwidths).tolist())


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
