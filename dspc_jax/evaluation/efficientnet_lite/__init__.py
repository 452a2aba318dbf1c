"""EfficientNet-Lite0, 1 and 2, with their published weights."""

from dspc_jax.evaluation.efficientnet_lite.network import (
    EfficientNetLiteOutput,
    Variant,
    efficientnet_lite_outputs,
)
from dspc_jax.evaluation.efficientnet_lite.weights import (
    installed_weights,
    read_efficientnet_lite_params,
)

__all__ = [
    "EfficientNetLiteOutput",
    "Variant",
    "efficientnet_lite_outputs",
    "installed_weights",
    "read_efficientnet_lite_params",
]
