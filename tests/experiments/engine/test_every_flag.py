"""Every flag of every program does something, as far as can be told by reading.

A program's system is made with a record of which flags are looked at. A flag that a
user may give, with all others at their defaults, must be among them.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from experiments.engine import flags, flags_in_use
from experiments.engine.system import Labelled, System
from tests.experiments.engine.test_flags_in_use import NAMES, program
from tests.experiments.tiny import tiny_digits

# Read where data are loaded, and by the loop.
OF_THE_LOOP = {
    *("dataset", "data_dir", "data_source", "cache_dir", "debd_name", "image_size"),
    *("image_mode", "image_resize", "train_fraction", "flip", "workdir", "start_from"),
    *("seed", "num_seeds", "num_steps", "batch_size", "checkpoint_every"),
    *("eval_every", "keep_best", "patience", "log_every", "recipe"),
}
# Read when a step, or pictures, are traced.
OF_STEPS = {
    *("learning_rate", "sampler_learning_rate", "balance", "sample_weight"),
    *("ll_weight", "pae_missing", "pae_encode", "pae_loss", "pae_kl_weight"),
    *("pae_joint_weight", "mmd_critic_steps", "sharpness"),
}


def recording(group: Any, found: set[str]) -> Any:
    """The same flags; the names of those that are read are put into ``found``."""
    names = {field.name for field in dataclasses.fields(group)}

    class Recording(type(group)):
        def __getattribute__(self, name):
            if name in names:
                found.add(name)
            return super().__getattribute__(name)

    made = object.__new__(Recording)
    made.__dict__.update(vars(group))
    return made


def usable(name: str, found: set[str]) -> tuple[set[str], System]:
    """The flags of a program that may be given alone, and its system."""
    of_program = program(name)
    groups = of_program.parse([name, *["--recipe=none"][: name == "ll"]])
    recorders = [recording(group, found) for group in groups]
    system = of_program.make_system(*recorders, dataset=tiny_digits())
    fields = of_program.use.fields(of_program.groups)
    idle = flags_in_use.unmet(fields, of_program.use.only, flags.by_name(groups))
    return {field.name for field in fields} - set(idle) - OF_THE_LOOP, system


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
