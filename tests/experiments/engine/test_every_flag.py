"""Every flag of every program does something, as far as can be told by reading.

The system of a program that trains is made, and the other programs are run, with a
record of which flags are looked at. A flag that a user may give, with all others at
their defaults, must be among them.
"""

import functools
import importlib
from pathlib import Path
import pkgutil

import jax
import numpy as np
import pytest

import dspc_jax as pc
import experiments
from experiments import binary_tables, report, study, synthetic
from experiments.engine.system import Labelled, System
from experiments.models import tree_mixture
from experiments.study import table
from experiments.two_dimensional import data as synthetic_data
from experiments.two_dimensional import training
from tests.experiments import fabricated
from tests.experiments.data.test_debd import write_folder
from tests.experiments.engine.test_flags_in_use import NAMES, program
from tests.experiments.recording import in_use, recording, unread
from tests.experiments.tiny import tiny_digits

# Read where data are loaded, and by the loop.
OF_THE_LOOP = {
    *("dataset", "data_dir", "data_source", "cache_dir", "debd_name", "image_size"),
    *("image_mode", "image_resize", "train_fraction", "flip", "workdir", "start_from"),
    *("seed", "num_seeds", "num_steps", "batch_size", "checkpoint_every"),
    "checkpoint_minutes",
    *("eval_every", "keep_best", "patience", "log_every", "recipe"),
}
# Read when a step, or pictures, are traced.
OF_STEPS = {
    *("learning_rate", "sampler_learning_rate", "balance", "sample_weight"),
    *("ll_weight", "pae_missing", "pae_encode", "pae_loss", "pae_kl_weight"),
    *("pae_joint_weight", "mmd_critic_steps", "sharpness"),
}


def usable(name: str, found: set[str]) -> tuple[set[str], System]:
    """The flags of a program that may be given alone, and its system."""
    of_program = program(name)
    groups = of_program.parse([name, *["--recipe=none"][: of_program.has_recipes]])
    recorders = [recording(group, found) for group in groups]
    system = of_program.make_system(*recorders, dataset=tiny_digits())
    fields = of_program.use.fields(of_program.groups)
    return in_use(fields, of_program.use.only, groups) - OF_THE_LOOP, system


@pytest.mark.parametrize("name", NAMES)
def test_a_flag_that_may_be_given_is_read(name: str):
    result: set[str] = set()
    names, _ = usable(name, result)
    assert names - OF_STEPS <= result


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_only_steps_read_is_read_by_them(name: str):
    result: set[str] = set()
    names, system = usable(name, result)
    levels = np.zeros((16, 8, 1), np.uint8)
    batch = Labelled(levels, np.zeros(16, np.int32)) if system.labelled else levels

    def run(key):
        keys = jax.random.split(key, 3)
        state = system.init(keys[0])
        pictures = system.sample(state, keys[1], 4)
        return pictures, system.step(state, keys[2], batch, 0, lambda _: batch)

    jax.eval_shape(run, jax.random.key(0))
    assert names <= result


def test_every_program_is_looked_at():
    """Here, and `evaluate` where it is run: `tests.experiments.measuring`."""
    others = {"report", "study", "synthetic", "binary_tables", "evaluate"}
    found = {module.name for module in pkgutil.iter_modules(experiments.__path__)}
    modules = {name: importlib.import_module(f"experiments.{name}") for name in found}
    result = {name for name, module in modules.items() if hasattr(module, "parse")}
    assert result == {*NAMES, *others}


def test_the_report_reads_its_flags(tmp_path: Path):
    runs = fabricated.make(tmp_path / "run", metrics={})
    words = [f"--runs={runs}", f"--out={tmp_path / 'report'}"]
    assert not unread(report.main, report.parse(["report", *words]))
    words = [f"--runs={runs}", f"--out={tmp_path / 'table.json'}"]
    assert not unread(table.main, table.parse(["table", *words]))


def test_a_study_reads_its_flags(tmp_path: Path):
    words = ["--dry_run=1", f"--workdir={tmp_path}"]
    assert not unread(study.main, study.parse(["study", *words]))


@pytest.mark.parametrize(
    "words",
    [
        "--objectives=ll,mmd,adv",
        "--objectives=adv --adv_discriminator=mlp --relaxation=reinmax",
    ],
)
def test_the_two_dimensional_study_reads_its_flags(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Training is traced only."""

    def one(settings, objective, points):
        training.train(settings, objective, points)
        numbers = {name: [0.0] for name in ("test_ll", "energy", "modes")}
        result = {"set": points.name, "objective": objective} | numbers
        return result, np.zeros((2, 2))

    def traced(function):
        return functools.partial(jax.eval_shape, function)

    monkeypatch.setattr(jax, "jit", traced)
    monkeypatch.setattr(synthetic, "_one", one)
    monkeypatch.setattr(synthetic.synthetic_report, "figure", lambda *_: None)
    small = synthetic_data.load("two_clusters", 50, 50)
    monkeypatch.setattr(synthetic_data, "load", lambda name: small)
    argv = ["synthetic", "--sets=two_clusters", f"--workdir={tmp_path}", *words.split()]
    unused = unread(synthetic.main, synthetic.parse(argv))
    assert unused == {"preset"}  # which the parser reads


def test_tables_read_their_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither started nor trained."""

    def started(key, x, num_trees, num_units):
        structure = pc.RandomBinaryTrees(x.shape[1], depth=1, num_repetitions=1)
        circuit = pc.build(pc.CircuitConfig(structure, pc.Bernoulli()))
        return circuit, circuit.init(key)

    monkeypatch.setattr(tree_mixture, "started", started)
    monkeypatch.setattr(
        binary_tables, "_epoch", lambda circuit, schedule, count, *state: state[:2]
    )
    monkeypatch.setattr(binary_tables, "_log_probs", lambda f, p, x: np.zeros(len(x)))
    write_folder(tmp_path, "one")
    words = [f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'out'}", "--tables=one"]
    groups = binary_tables.parse(["binary_tables", *words])
    assert not unread(binary_tables.main, groups)
