"""The Inception network of the FID, with its published weights."""

from dspc_jax.evaluation.inception.network import InceptionOutput, inception_outputs
from dspc_jax.evaluation.inception.weights import read_inception_params

__all__ = ["InceptionOutput", "inception_outputs", "read_inception_params"]
