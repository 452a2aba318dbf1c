"""What a device can do at most: by its maker, and by a large product and copy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import measure

_COPY_GIB = {"cpu": 0.0625}
_PRODUCT_SIZE = {"cpu": 512}


class Peak(NamedTuple):
    """Rates of one device.

    Attributes:
        gflops: float32 products at full precision, 10^9 FLOP/s. On TPUs a sixth of the
            rate of bfloat16, as full precision takes six passes.
        gbs: of its memory, 10^9 bytes/s, read and written bytes counted.
        source: where the numbers are from.
    """

    gflops: float
    gbs: float
    source: str


# By makers' data sheets; the first name that is part of the device's own counts.
_DATA_SHEETS = {
    "H200": Peak(67e3, 4800, "data sheet"),
    "H100 PCIe": Peak(51e3, 2000, "data sheet"),
    "H100": Peak(67e3, 3350, "data sheet"),
    "A100-SXM4-40GB": Peak(19.5e3, 1555, "data sheet"),
    "A100-PCIE-40GB": Peak(19.5e3, 1555, "data sheet"),
    "A100": Peak(19.5e3, 2039, "data sheet"),
    "L4": Peak(30.3e3, 300, "data sheet"),
    "TPU v4": Peak(275e3 / 6, 1228, "data sheet"),
    "TPU v5 lite": Peak(197e3 / 6, 819, "data sheet"),
}


def data_sheet(kind: str) -> Peak | None:
    """The peaks of a device by its name; None of an unknown one."""
    words = kind.replace("NVIDIA ", "") + " "
    known = (n for n in _DATA_SHEETS if words.startswith((f"{n} ", f"{n}-")))
    name = next(known, None)
    return _DATA_SHEETS[name] if name else None


def measured() -> Peak:
    """The rates of a large float32 product and of a large copy, on this device."""
    backend = jax.default_backend()
    size = _PRODUCT_SIZE.get(backend, 8192)
    a = jnp.full((size, size), 0.5, jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    times = measure.time_calls(lambda: product(a), seconds=0.3)
    gflops = 2 * size**3 / times["min_ms"] / 1e6
    num = int(_COPY_GIB.get(backend, 2.0) * 2**30) // 4
    x = jnp.zeros((num,), jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    times = measure.time_calls(lambda: copy(x), seconds=0.3)
    return Peak(gflops, 2 * 4 * num / times["min_ms"] / 1e6, "measured")


def of_device() -> Peak:
    """The peaks of the first device: of its data sheet if known, else measured."""
    return data_sheet(jax.devices()[0].device_kind) or measured()
