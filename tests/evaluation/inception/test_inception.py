"""The Inception network of the FID against torch-fidelity's, on random weights.

``torch_fidelity.json`` holds outputs of torch-fidelity's network (torch 2.13.0,
float64) with the weights and inputs of `random_weights`; published weights are needed
for none of this.
"""

import hashlib
import json
import pathlib

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from dspc_jax.evaluation.inception import network as inception
from dspc_jax.evaluation.inception.network import (
    Inception,
    InceptionOutput,
    inception_outputs,
)
from dspc_jax.evaluation.inception.resizing import resize
from dspc_jax.evaluation.inception.weights import (
    SHA256_PREFIX,
    expected_tensors,
    params_from_tensors,
    read_inception_params,
)
from tests import cases
from tests.evaluation.inception.random_weights import (
    random_images,
    random_maps,
    random_tensors,
)

PUBLISHED = json.loads(
    (pathlib.Path(__file__).parent / "torch_fidelity.json").read_text()
)
# Of the lines "name [shape]", sorted, in the header of the published file.
HEADER_DIGEST = "8cdd2faeb41211e17f0fb47e66168d0cb1f981aa773b5f44e5b9cc93857fe492"
BLOCKS = {
    "Mixed_5b": inception.BlockA(32),
    "Mixed_6a": inception.BlockB(),
    "Mixed_6b": inception.BlockC(128),
    "Mixed_7a": inception.BlockD(),
    "Mixed_7b": inception.BlockE("average"),
    "Mixed_7c": inception.BlockE("maximum"),
}
CHANNELS = {
    "Mixed_5b": 192,
    "Mixed_6a": 288,
    "Mixed_6b": 768,
    "Mixed_7a": 768,
    "Mixed_7b": 1280,
    "Mixed_7c": 2048,
}


resized = cases.jit(resize, static_argnums=(1, 2), static_argnames="method")


def _block_params(block):
    """Our parameters of one block: those of a network whose other layers are 0."""
    tensors = {
        name: np.zeros(shape, np.float32) for name, shape in expected_tensors().items()
    }
    tensors |= random_tensors(expected_tensors(), f"{block}.")
    return params_from_tensors(tensors)[block]


def _apply(block, module: nn.Module):
    maps = random_maps(block, CHANNELS[block])
    return cases.jit(module.apply)({"params": _block_params(block)}, maps)


@pytest.mark.parametrize("block", ["Mixed_7c"])
def test_a_block_computes_what_torch_fidelity_computes(block):
    """One of the two quirks of pooling; the other blocks are slow tests."""
    _check_block(block)


def _check_block(block):
    published = PUBLISHED["blocks"][block]
    maps = _apply(block, BLOCKS[block])
    assert list(maps.shape) == published["shape"]
    some = maps.reshape(-1)[:: maps.size // 97]
    # Sums of some thousand products in float32, values of order 1.
    np.testing.assert_allclose(some, published["values"], atol=2e-5)
    np.testing.assert_allclose(maps.mean(), published["mean"], rtol=1e-5)


def test_the_pooling_of_the_last_block_matters():
    """Negative control: average pooling, as in the paper, is another network."""
    published = PUBLISHED["blocks"]["Mixed_7c"]["values"]
    maps = _apply("Mixed_7c", inception.BlockE("average"))
    some = maps.reshape(-1)[:: maps.size // 97]
    assert np.abs(some - published).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", ["Mixed_5b", "Mixed_6a", "Mixed_6b", "Mixed_7a", "Mixed_7b"]
)
def test_the_other_blocks(block):
    _check_block(block)


@pytest.mark.slow
@pytest.mark.parametrize("size", list(PUBLISHED["networks"]))
def test_the_network_computes_what_torch_fidelity_computes(size):
    """From gray levels to features and logits, by TensorFlow 1's resizing."""
    height, width = map(int, size.split("x"))
    params = params_from_tensors(random_tensors(expected_tensors()))
    images = jnp.asarray(random_images(height, width))
    outputs = jax.jit(inception_outputs, static_argnames="method")(
        params, images, method="bilinear"
    )
    assert outputs.features.shape == (2, 2048)
    assert outputs.logits.shape == (2, 1008)
    for ours, theirs in (
        (outputs.features[:, ::32], PUBLISHED["networks"][size]["features"]),
        (outputs.logits[:, ::16], PUBLISHED["networks"][size]["logits"]),
    ):
        scale = float(np.std(theirs))
        np.testing.assert_allclose(np.ravel(ours), theirs, atol=2e-5 * scale, rtol=2e-5)


def test_names_and_shapes_are_those_of_the_published_file():
    """566 tensors, 23,885,392 numbers; the digest is that of the file's own header."""
    expected = expected_tensors()
    assert len(expected) == 566
    counts = [
        np.prod(shape, dtype=int)
        for name, shape in expected.items()
        if not name.endswith("num_batches_tracked")
    ]
    assert sum(counts) == 23_885_392
    lines = [f"{name} {list(shape)}" for name, shape in sorted(expected.items())]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == HEADER_DIGEST


def test_a_wrong_file_is_not_parsed():
    with pytest.raises(ValueError, match=f"must begin with {SHA256_PREFIX}, got e3b0c"):
        read_inception_params(b"")


def test_the_hash_stands_before_the_parser_and_the_parser_before_the_network():
    data = b"not a file of torch's"
    digest = hashlib.sha256(data).hexdigest()
    with pytest.raises(ValueError, match="not a readable file of tensors"):
        read_inception_params(data, sha256_prefix=digest[:8])


def test_other_tensors_are_refused():
    tensors = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in expected_tensors().items()
    }
    name = "Mixed_5b.branch1x1.bn.bias"
    with pytest.raises(ValueError, match=f"must hold '{name}', got none of it .1 miss"):
        params_from_tensors({k: v for k, v in tensors.items() if k != name})
    with pytest.raises(ValueError, match="those of Inception, got 'more' .1 unknown"):
        params_from_tensors({**tensors, "more": np.zeros(1)})
    with pytest.raises(ValueError, match=rf"{name} must have the shape \(64,\), got"):
        params_from_tensors({**tensors, name: np.zeros(63, np.float32)})
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        params_from_tensors({**tensors, name: np.full(64, np.nan, np.float32)})
    name = "Mixed_5b.branch1x1.bn.running_var"
    with pytest.raises(ValueError, match=f"{name} must not be negative"):
        params_from_tensors({**tensors, name: np.full(64, -1, np.float32)})


def test_gray_images_are_repeated_and_shapes_are_checked(monkeypatch):
    images = []

    def apply(_, variables, x):
        images.append(x)
        return InceptionOutput(x, x)

    monkeypatch.setattr(Inception, "apply", apply)
    gray = jnp.asarray([[[[0], [255]]]], jnp.uint8)
    inception_outputs({}, gray)
    inception_outputs({}, jnp.repeat(gray, 3, -1))
    assert images[0].shape == (1, 299, 299, 3)
    np.testing.assert_array_equal(images[0], images[1])
    # From black to white: the overshoot of the cubic is clipped.
    assert images[0].min() == -1
    assert images[0].max() == 127 / 128
    for shape in ((2, 3, 3), (2, 3, 3, 2)):
        with pytest.raises(ValueError, match=r"images must be of shape \[B, H, W, 1\]"):
            inception_outputs({}, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 5), (29, 17)), ((28, 28), (29, 29)), ((64, 40), (13, 21)), ((7, 1), (3, 4))],
)
def test_bicubic_resizing_is_pillow_s(old, new):
    """One channel at a time in float32, as clean-fid does it."""
    images = random_images(*old).astype(np.float32)
    ours = resized(images, *new, method="bicubic")
    for image, result in zip(images, ours, strict=True):
        for channel in range(3):
            theirs = Image.fromarray(image[..., channel]).resize(
                new[::-1], Image.Resampling.BICUBIC
            )
            np.testing.assert_allclose(
                result[..., channel], np.asarray(theirs), atol=2e-4
            )


def test_bilinear_resizing_is_tensorflow_1_s():
    images = random_images(13, 40).astype(np.float32)
    ours = resized(images, 21, 17, method="bilinear")
    np.testing.assert_allclose(
        np.ravel(ours)[::19], PUBLISHED["bilinear"], rtol=1e-5, atol=1e-3
    )


def test_resizing_to_the_same_size_changes_nothing_and_other_methods_are_refused():
    images = random_images(9, 8).astype(np.float32)
    for method in ("bicubic", "bilinear"):
        same = resized(images, 9, 8, method=method)
        np.testing.assert_allclose(same, images, atol=1e-4)
    images = jnp.asarray(images)
    with pytest.raises(ValueError, match="method must be 'bicubic' or .* 'nearest'"):
        resize(images, 9, 8, method="nearest")
    with pytest.raises(ValueError, match="height must be at least 1, got 0"):
        resize(images, 0, 8, method="bicubic")
