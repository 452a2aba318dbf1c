"""Full-batch steps of EM after the last step of a run."""

import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import optax
import pytest

import dspc_jax as pc
from experiments import ll
from experiments.console.errors import UserError, exit_code
from experiments.data import Dataset
from experiments.engine import training
from experiments.engine.device_loop import DeviceLoop
from experiments.engine.flags import Settings
from experiments.engine.saving import Saver
from experiments.models.circuit import circuit_config
from tests import cases
from tests.experiments import gaussian_program, runs
from tests.experiments.tiny import tiny_digits

CIRCUIT = {
    **{"structure": "quad_tree", "leaf": "categorical", "num_sums": 2},
    **{"num_leaves": 2, "optimizer": "em", "em_pseudocount": 0.5},
}


def dataset() -> Dataset:
    digits = tiny_digits()
    assert digits.train_labels is not None
    return digits._replace(
        train=digits.train[:100], train_labels=digits.train_labels[:100]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [{"labels": "roots", "flip": "horizontal"}, {}],
    ids=["labels and flips", "plain"],
)
def test_a_step_is_that_of_the_library_on_all_images(more):
    """Of two seeds, in batches that leave a rest."""
    data = dataset()
    values = {"batch_size": 32, "num_seeds": 2, "em_closing_steps": 1}
    settings = Settings(**CIRCUIT, **values, **more)
    flip = settings.flip == "horizontal"
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    system = ll.make_system(settings, data)
    loop = DeviceLoop(system, data, 0, 2, 32, mesh, 2**30, flip=flip)
    state = loop.init().state
    assert loop.closing is not None
    new = loop.closing.step(state, 0)
    circuit = pc.build(circuit_config(settings, data))
    x, scale = data.train.astype(np.float32), 100 / 32
    if flip:
        x = np.concatenate([x, x.reshape(-1, 2, 4, 1)[:, :, ::-1].reshape(x.shape)])
        scale *= 2
    em = pc.em(circuit, pseudocount=0.5 * scale, leaf_pseudocount=0.0)
    assert data.train_labels is not None
    labels = np.resize(data.train_labels, len(x)) if "labels" in more else None

    @cases.jit
    def step(own):
        counts: Any = pc.expected_counts(circuit, own, x, labels=labels)
        change, _ = em.update(counts, optax.EmptyState(), own)
        return optax.apply_updates(own, change)

    for seed in range(2):
        own: Any = jax.tree.map(lambda a, s=seed: a[s], state.params["circuit"])
        wanted = step(own)
        result = jax.tree.map(lambda a, s=seed: a[s], new.params["circuit"])
        pairs = zip(*map(jax.tree.leaves, (result, wanted)), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert loop.closing.step(state, 0, lambda: True) is None


FLAGS = (
    *("--recipe=none", "--dataset=digits", "--structure=quad_tree"),
    *("--leaf=categorical", "--num_sums=2", "--num_leaves=2", "--optimizer=em"),
    *("--batch_size=361", "--num_steps=3", "--num_seeds=2", "--eval_every=2"),
    *("--em_closing_steps=2", "--em_momentum=0.3"),
)


def run_here(workdir: Path, *words: str) -> int:
    groups = ll.parse(["ll", f"--workdir={workdir}", *FLAGS, *words])
    return exit_code(lambda: ll.main(groups))


class Died(Exception):
    """In the place of a signal."""


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--keep_best",)])
def test_the_same_bits_after_deaths_between_closing_steps(
    words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_here(whole, *words) == 0
    result = json.loads((whole / "result.json").read_text())
    assert result["step"] == 5
    assert runs.steps_saved(whole) == [4, 5]
    bits = {line["step"]: line["valid/bits_per_dim"] for line in runs.lines(whole)}
    # Far from a maximum, two full steps are better than three of size 0.1.
    assert bits[5] < bits[4] < bits[3]
    if words:
        assert result["best_step"] == [5, 5]
    save = Saver.save

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", save_and_die)
        for step in (3, 4, 5):
            with pytest.raises(Died):
                run_here(parts, *words)
            assert runs.steps_saved(parts)[-1] == step
    assert run_here(parts, *words) == 0
    runs.assert_same_bits(parts, whole, 5)
    assert runs.lines(parts) == runs.lines(whole)
    last = json.loads((parts / "result.json").read_text())
    for name in ("step", "metrics", *(["best_step"] if words else [])):
        assert last[name] == result[name]
    capsys.readouterr()
    assert run_here(whole, *words) == 0
    assert "finished before, nothing left to do" in capsys.readouterr().out
    assert run_here(whole, *words, "--num_steps=9") == 2
    assert "differs in --num_steps" in capsys.readouterr().err


@pytest.mark.slow
def test_eight_devices_give_the_step_of_one():
    """In a process of their own, see `tests.experiments.runs`."""
    values = {"batch_size": 32, "em_closing_steps": 1}
    script = (
        "import jax, numpy as np\n"
        "from jax.sharding import Mesh\n"
        "from experiments import ll\n"
        "from experiments.engine.device_loop import DeviceLoop\n"
        "from experiments.engine.flags import Settings\n"
        "from tests.experiments.engine import test_full_batch as own\n"
        f"settings = Settings(**own.CIRCUIT, **{values})\n"
        "data, states = own.dataset(), []\n"
        "system = ll.make_system(settings, data)\n"
        "for num in (1, 8):\n"
        "    mesh = Mesh(np.array(jax.devices()[:num]), ('batch',))\n"
        "    loop = DeviceLoop(system, data, 0, 1, 32, mesh, 2**30)\n"
        "    new = loop.closing.step(loop.init().state, 0)\n"
        "    states.append(jax.device_get(new.params))\n"
        "jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), "
        "*states)\n"
        "print('equal')\n"
    )
    code, out, err = runs.run(script, devices=8, program="-c")
    assert (code, out) == (0, "equal\n"), err


def test_programs_without_such_steps_refuse_them(tmp_path: Path):
    groups = gaussian_program.parse(["x", f"--workdir={tmp_path / 'run'}"])
    settings, test = groups
    groups = [Settings(optimizer="em", em_closing_steps=1), test]
    digits = tiny_digits()
    system = gaussian_program.gaussian_system(digits, settings, test)
    with pytest.raises(UserError, match="em_closing_steps must be 0 .* got 1"):
        training.run("x", system, digits, groups)
