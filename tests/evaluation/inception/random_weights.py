"""Weights of the Inception network that any machine can make again, without torch."""

import zlib

import numpy as np


def random_state(name: str) -> np.random.RandomState:
    """Numbers that depend on a name alone; RandomState never changes its streams."""
    return np.random.RandomState(zlib.crc32(name.encode()))  # noqa: NPY002


def random_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the weights file with numbers at which every layer is alive."""
    state = random_state(name)
    match name.rsplit(".", 1)[-1]:
        case "num_batches_tracked":
            return np.zeros((), np.int64)
        case "running_var":
            return state.uniform(0.5, 1.5, shape).astype(np.float32)
        case "running_mean" | "bias":
            return (0.1 * state.standard_normal(shape)).astype(np.float32)
        case "weight" if len(shape) == 1:
            return state.uniform(0.5, 1.5, shape).astype(np.float32)
        case _:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            return (scale * state.standard_normal(shape)).astype(np.float32)


def random_tensors(
    shapes: dict[str, tuple[int, ...]], prefix: str = ""
) -> dict[str, np.ndarray]:
    """The tensors whose names begin with ``prefix``."""
    return {
        name: random_tensor(name, shape)
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def random_images(height: int, width: int) -> np.ndarray:
    """Two images ``[2, H, W, 3]`` uint8: noise, and smooth waves with some noise."""
    state = random_state(f"images {height} {width}")
    noise = state.randint(0, 256, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / (3 + c)) * np.cos(x / (5 - c)) for c in range(3)]
    smooth = 128 + 80 * np.stack(waves, -1) + 10 * state.standard_normal(noise.shape)
    return np.stack([noise, smooth.clip(0, 255)]).astype(np.uint8)


def random_maps(block: str, channels: int) -> np.ndarray:
    """Two inputs ``[2, 9, 8, channels]`` of a block: not square, with borders."""
    maps = random_state(f"maps {block}").standard_normal((2, 9, 8, channels))
    return maps.astype(np.float32)
