"""Neural networks beside the circuits, in Flax (Linen).

A network is a NamedTuple of pure functions of explicit parameters, on values in the
shape of a circuit's examples, ``[B, V, C]``, so that jit, scan and vmap over seeds
apply to it as to a circuit. Each call of a factory makes new functions: hold the
result.
"""

from dspc_jax.networks.auto_encoders import (
    AutoEncoder,
    image_auto_encoder,
    mlp_auto_encoder,
)
from dspc_jax.networks.classifiers import Classifier, convolutional_classifier
from dspc_jax.networks.critics import FeatureCritic, convolutional_critic
from dspc_jax.networks.discriminators import (
    Discriminator,
    convolutional_discriminator,
    mlp_discriminator,
)
from dspc_jax.networks.generators import (
    NetworkGenerator,
    convolutional_generator,
    mlp_generator,
)
from dspc_jax.networks.layers import count_params
from dspc_jax.networks.spectral import spectral_norm, spectrally_normalized
from dspc_jax.networks.variational import (
    VariationalAutoEncoder,
    convolutional_variational_auto_encoder,
    mlp_variational_auto_encoder,
)

__all__ = [
    "AutoEncoder",
    "Classifier",
    "Discriminator",
    "FeatureCritic",
    "NetworkGenerator",
    "VariationalAutoEncoder",
    "convolutional_classifier",
    "convolutional_critic",
    "convolutional_discriminator",
    "convolutional_generator",
    "convolutional_variational_auto_encoder",
    "count_params",
    "image_auto_encoder",
    "mlp_auto_encoder",
    "mlp_discriminator",
    "mlp_generator",
    "mlp_variational_auto_encoder",
    "spectral_norm",
    "spectrally_normalized",
]
