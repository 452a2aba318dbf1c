"""Checkpoints that simple-einet and the published code wrote, and their own answers.

``einets.zip`` has state dictionaries of torch 2.13, with random numbers for parameters
(those of a start are all alike), and what their networks' ``forward`` answered, with
all variables observed and with some: of simple-einet at commit 5c62f3f, and of
ml-research/differentiable-sampling-pc (``official_...``).
"""

import io
import pathlib
from typing import Any
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.ports import einet
from dspc_jax.safe_files import read_tensors

ARCHIVE = pathlib.Path(__file__).parent / "einets.zip"
SEVEN = pc.Binomial(7)
LEAVES: dict[str, Any] = {
    "official_binomial": SEVEN,
    "official_normal": pc.Normal(1e-4),
    "official_rat_normal": pc.Normal(1e-3, 1.0),
    "einsum_binomial": SEVEN,
    "einsum_one_repetition": SEVEN,
    "einsum_as_many_variables": SEVEN,
    "einsum_normal": pc.Normal(1e-3, 100.0),
    "einsum_bernoulli": pc.Bernoulli(),
    "linsum_rat_normal": pc.Normal(0.1, 1.0),
    "linsum_categorical": pc.Categorical(4),
    "linsum_one_layer": SEVEN,
    "linsum2_binomial": SEVEN,
    "linsum2_many_classes": SEVEN,
    "depth_0": SEVEN,
}
FAST = {
    *("official_binomial", "linsum_categorical", "einsum_one_repetition"),
    "linsum2_many_classes",
}


def unpacked(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A checkpoint as a file of its own."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return pathlib.Path(archive.extract(f"{name}.pt", folder))


def answers(name: str) -> dict[str, np.ndarray]:
    """Data and log-likelihoods given each class, of all and of the ``seen`` ones."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        arrays = np.load(io.BytesIO(archive.read("answers.npz")))
    wanted = ("x", "seen", "log_p", "marginal")
    return {key: arrays[f"{name}/{key}"] for key in wanted}


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in LEAVES],
)
def test_likelihoods_are_those_of_their_network(name: str, tmp_path: pathlib.Path):
    config, params = pc.from_einet(unpacked(tmp_path, name), LEAVES[name])
    circuit, theirs = pc.build(config), answers(name)
    x, seen = theirs["x"], theirs["seen"]
    both = np.stack([np.ones_like(seen), seen])

    def log_probs(x, observed):
        return circuit.class_log_probs(params, x, observed)

    ours = jax.jit(jax.vmap(jax.vmap(log_probs, (0, None)), (None, 0)))(x, both)
    # Theirs have errors of float32 as well: up to 120 nats here.
    np.testing.assert_allclose(ours[0], theirs["log_p"], atol=2e-4, rtol=0)
    np.testing.assert_allclose(ours[1], theirs["marginal"], atol=2e-4, rtol=0)
    num_classes = theirs["log_p"].shape[1]
    assert config.num_classes == num_classes
    np.testing.assert_array_equal(params.classes, np.zeros(num_classes))


def test_a_converted_circuit_is_saved_and_drawn_from(tmp_path: pathlib.Path):
    config, params = pc.from_einet(
        unpacked(tmp_path, "einsum_binomial"), SEVEN, dtype="bfloat16"
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    pc.save(tmp_path / "circuit.npz", config, params)
    again, _ = pc.load(tmp_path / "circuit.npz", config)
    assert again == config
    shapes = jax.eval_shape(pc.build(config).init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, shapes)


def test_a_network_inside_of_another_module_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    path = unpacked(tmp_path, "depth_0")
    plain, _ = pc.from_einet(path, SEVEN)
    named = {f"model.{k}": v for k, v in read_tensors(path.read_bytes()).items()}
    monkeypatch.setattr(einet, "read_tensors", lambda data: named)
    assert pc.from_einet(path, SEVEN)[0] == plain
    named["optimizer"] = np.zeros(1)
    with pytest.raises(ValueError, match="must be those of 'model.', got .optimizer"):
        pc.from_einet(path, SEVEN)


def reshaped(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[name] = tensors[name][..., :-1]


def removed(tensors: dict[str, np.ndarray], name: str) -> None:
    del tensors[name]


def added(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[name] = np.zeros(1, np.float32)


def emptied(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[name] = tensors[name][:, [1, 1, 2, 3]]


def moved(tensors: dict[str, np.ndarray], name: str) -> None:
    scopes = np.zeros_like(tensors[name])
    scopes[:, 0] = 1
    tensors[name] = scopes


def broken(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[name] = np.full_like(tensors[name], np.nan)


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (
            reshaped,
            "layers.0.logits",
            "must be of shape (2, 4, 2, 3, 3), got (2",
        ),
        (
            reshaped,
            "layers.1.logits",
            "must be of shape (1, 3, 2, 4, 4), got (1",
        ),
        (
            reshaped,
            "mixing.logits",
            "mixing.logits must be of shape (1, 3, 2), ",
        ),
        (
            reshaped,
            "leaf.scopes",
            "leaf.scopes must be of shape (10, 4, 2), ",
        ),
        (removed, "layers.0.logits", "tensors layers.0.logits and on, got layers [1]"),
        (removed, "layers.1.logits", "1 layers must be on 2 input regions, got 4"),
        (
            removed,
            "leaf.base_leaf.logits",
            "leaf must be Binomial or Bernoulli or ",
        ),
        (removed, "leaf.scopes", "the file must have a tensor leaf.permutation"),
        (added, "permutation", "must be those of a top-down Einet, got 'permutation'"),
        (emptied, "leaf.scopes", "leaf.scopes must put every variable into one region"),
        (moved, "leaf.scopes", "every input region must have a variable, got one with"),
        (broken, "leaf.base_leaf.logits", "leaf.base_leaf.logits must be finite"),
    ],
)
def test_other_files_are_refused(
    change: Any,
    name: str,
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    path = unpacked(tmp_path, "einsum_binomial")
    tensors = read_tensors(path.read_bytes())
    change(tensors, name)
    monkeypatch.setattr(einet, "read_tensors", lambda data: tensors)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        pc.from_einet(path, SEVEN)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "leaf", "message"),
    [
        (
            "einsum_binomial",
            pc.Normal(),
            "must be Binomial with leaf.base_leaf.log",
        ),
        (
            "linsum_categorical",
            pc.Categorical(5),
            "must be Categorical(4), got",
        ),
        (
            "linsum_rat_normal",
            pc.Normal(0.1),
            "must be Normal(min_sigma, max",
        ),
        (
            "einsum_normal",
            pc.Normal(0.1, 1.0),
            "leaf must have bounds around the",
        ),
        (
            "depth_0",
            (SEVEN,) * 5,
            "must be Binomial with leaf.base_leaf.logits(1, ",
        ),
    ],
)
def test_other_leaves_are_refused(
    name: str, leaf: Any, message: str, tmp_path: pathlib.Path
):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        pc.from_einet(unpacked(tmp_path, name), leaf)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_is_refused(tmp_path: pathlib.Path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="not a readable file of tensors"):
        pc.from_einet(path, SEVEN)
    with pytest.raises(FileNotFoundError):
        pc.from_einet(tmp_path / "none.pt", SEVEN)
