"""Flags, the one line that a mistake gets, and temperature schedules."""

import dataclasses
import importlib
import math
import os
from pathlib import Path
import re
import signal
import sys
import tomllib
from typing import Any

from absl import flags as absl_flags
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import ll, mmd
from experiments.console.errors import RunFailed, UserError, exit_code
from experiments.engine import command_line
from experiments.engine.flags import Settings
from experiments.losses.critic import CriticSettings
from experiments.losses.mixture import MixtureSettings
from experiments.losses.mmd import MmdSettings
from experiments.models import temperature
from tests.experiments import runs


def parse(*words: str, **defaults: Any) -> Settings:
    argv = ["x", *words]
    (settings,) = command_line.parse(
        argv, "experiments.x", "trains", [Settings], defaults
    )
    return settings


def test_flags_become_a_frozen_dataclass():
    assert parse() == Settings()
    settings = parse("--num_steps=7", "--learning_rate", "1e-3", "--workdir=a b")
    assert settings == Settings(num_steps=7, learning_rate=1e-3, workdir="a b")
    assert isinstance(settings.learning_rate, float)
    assert parse(num_steps=3).num_steps == 3
    assert parse("--num_steps=4", num_steps=3).num_steps == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="do not exist"):
        parse(no_such_flag=3)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--num_steps=0", "--num_steps must be at least 1, got 0"),
        ("--num_steps=1.5", "--num_steps must be a whole number, got '1.5'"),
        ("--learning_rate=fast", "--learning_rate must be a number, got 'fast'"),
        ("--learning_rate=nan", "--learning_rate must be greater than 0, got nan"),
        ("--learning_rate=inf", "--learning_rate must be greater than 0, got inf"),
        ("--temperature=0", "--temperature must be greater than 0, got 0.0"),
        ("--em_step_size=1.5", "must be greater than 0 and at most 1, got 1.5"),
        ("--leaf=gamma", "--leaf must be one of binomial, normal, bernoulli"),
        (
            "--dataset=imagenet",
            "--dataset must be one of digits, mnist, ",
        ),
        ("--sead=1", "Unknown command line flag 'sead'. Did you mean: seed ?"),
        ("--num_step=1", "Unknown command line flag 'num_step'"),  # no abbreviations
        ("--num_steps", "Missing value for flag --num_steps"),
        ("digits", "unrecognized arguments: digits"),
        ("--flagfile=/no/such", "Unable to open flagfile"),
    ],
)
def test_mistakes_name_flag_requirement_and_value(word: str, message: str):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parse(word)
    assert "\n" not in str(caught.value)


def test_defaults_satisfy_their_requirements():
    for group in (Settings, MixtureSettings, MmdSettings, CriticSettings):
        for field in dataclasses.fields(group):
            assert field.metadata["help"], field.name
            requirement = field.metadata["requirement"]
            if requirement is not None and field.default is not None:
                assert requirement.holds(field.default), field.name
    with pytest.raises(UserError, match="--num_steps must be at least 1, got 0"):
        parse(num_steps=0)


def test_flags_are_absl_flags_of_one_program(tmp_path: Path):
    one, other = (command_line.define(f"experiments.{x}", [Settings]) for x in "ab")
    one(["a", "--seed=3"])  # no DuplicateFlagError, and nothing shared
    assert isinstance(one, absl_flags.FlagValues)
    assert (one["seed"].value, other["seed"].value) == (3, 0)
    assert "num_leaves" not in absl_flags.FLAGS
    with pytest.raises(absl_flags.DuplicateFlagError):
        command_line.define("experiments.c", [Settings, Settings])
    # absl's way of writing a command down, and of reading it again.
    file = tmp_path / "flags"
    file.write_text(one.flags_into_string())
    assert parse(f"--flagfile={file}", "--batch_size=2") == Settings(
        seed=3, batch_size=2
    )


def test_flags_of_absl_are_set_beside_the_programs():
    process = absl_flags.FlagValues()
    absl_flags.DEFINE_integer("verbosity", -1, "v", flag_values=process, short_name="v")
    absl_flags.DEFINE_bool("help", False, "absl's own", process)
    argv = ["x", "--verbosity", "1", "--seed=2"]
    (settings,) = command_line.parse(argv, "x", "trains", [Settings], also=process)
    assert settings == Settings(seed=2)
    assert process["verbosity"].value == 1
    assert not process["verbosity"].using_default_value


@pytest.mark.parametrize("program", [ll, mmd])
def test_help_explains_every_flag(program, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        program.parse(["x", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    groups = (
        [Settings]
        if program is ll
        else [Settings, MixtureSettings, MmdSettings, CriticSettings]
    )
    for field in program.PROGRAM.use.fields(groups):
        no = "[no]" * isinstance(field.default, bool)  # absl's way with these
        entry = f"--{no}{field.name}: {field.metadata['help']}"
        if field.default is not None:
            default = str(field.default)
            entry += f" (default: '{default.lower() if no else default}')"
        # Lines break at blanks, and within --mmd_kernel=auto-encoder at its hyphen.
        assert entry.replace(" ", "") in text.replace(" ", ""), field.name


names = pytest.mark.parametrize(
    "name", ["mmd", pytest.param("ll", marks=pytest.mark.slow)]
)


@names
def test_the_programs_run_as_modules(name: str):
    """A mistake, in a process of its own."""
    code, out, err = runs.run("--num_steps=0", program=f"experiments.{name}")
    assert (code, out) == (2, "")
    assert err == "error: --num_steps must be at least 1, got 0\n"


def script() -> list[str]:
    """Module and function of the one script of pyproject.toml."""
    project = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())["project"]
    return project["scripts"]["dspc"].split(":")


def test_the_script_is_a_function():
    module, function = script()
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.slow
@names
def test_the_programs_run_by_the_script(name: str):
    """``--help`` (in this process: above), in a process of its own."""
    module, function = script()
    words = f"import sys; from {module} import {function}; sys.exit({function}())"
    code, out, err = runs.run(words, name, "--help", program="-c")
    assert (code, err) == (0, "")
    assert f"python -m experiments.{name}" in out


def test_a_reader_that_leaves_stops_a_program_silently(
    monkeypatch: pytest.MonkeyPatch,
):
    reading, writing = os.pipe()
    os.close(reading)  # as head does
    with open(writing, "w") as out:  # and nothing is left to fail when it is closed
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as stopped:
            parse("--help")
    assert stopped.value.code == 128 + signal.SIGPIPE


def test_exit_codes(capsys: pytest.CaptureFixture[str]):
    def fails(error: BaseException):
        def main() -> int:
            raise error

        return main

    assert exit_code(lambda: 0) == 0
    assert exit_code(fails(UserError("so"))) == 2
    assert capsys.readouterr().err == "error: so\n"
    assert exit_code(fails(RunFailed("thus"))) == 1
    assert capsys.readouterr().err == "failed: thus\n"
    assert exit_code(fails(KeyboardInterrupt())) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(KeyError):  # a bug keeps its traceback
        exit_code(fails(KeyError("x")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--structure=random_binary_trees", "--depth=9"],
            "--depth must satisfy 2**depth <= num_variables=64",
        ),
        (
            ["--leaf_min_scale=2"],
            "--leaf_min_scale must be positive and below leaf_max_scale=1.0, got 2.0",
        ),
        (["--dataset=mnist", "--data_source=files"], "--data_dir must name"),
        (["--workdir=/proc/nowhere"], "--workdir must be a folder"),
        (["--optimizer=em", "--leaf=discretized_logistic"], "--optimizer"),
        (["--em_leaf_spread=1"], "--em_leaf_spread must go with --optimizer=em"),
        (["--num_leaves=0"], "--num_leaves must be at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("program", [ll, mmd])
def test_programs_refuse_in_one_line(
    program,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    words = ["--recipe=none", *words]
    assert exit_code(lambda: program.main(program.parse(["x", *words]))) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())  # refused before anything was made


def temperatures(steps: list[int], before: int = 0, **given: Any) -> list[float]:
    settings = Settings(**given)
    params = temperature.init(settings)
    at = jax.jit(temperature.schedule(settings, before))
    return [float(at(params, jnp.int32(step))) for step in steps]


def test_temperature_schedules_are_functions_of_the_step():
    assert temperatures([0, 10**6], temperature=0.7) == pytest.approx([0.7, 0.7])
    annealed: dict[str, Any] = {
        "temperature": 2.0,
        "temperature_schedule": "annealed",
        "temperature_decay_steps": 10,
        "temperature_floor": 0.5,
    }
    assert temperatures([0, 10, 10**6], **annealed) == pytest.approx(
        [2.0, 2 * math.exp(-1), 0.5]
    )
    assert temperatures([0, 100, 110], before=100, **annealed) == pytest.approx(
        [2.0, 2.0, 2 * math.exp(-1)]
    )
    learned: dict[str, Any] = {
        "temperature": 0.3,
        "temperature_schedule": "learned",
        "relaxation": "straight_through",
    }
    assert temperatures([5], **learned) == pytest.approx([0.3])
    settings = Settings(**learned)
    gradient = jax.grad(lambda p: temperature.schedule(settings)(p, jnp.int32(0)))(
        temperature.init(settings)
    )
    logit = gradient["temperature"]["logit"]
    np.testing.assert_allclose(logit, 0.3 * 0.7, rtol=1e-5)
    assert temperature.init(Settings()) == {}
    with pytest.raises(UserError, match="--temperature must be less than 1"):
        temperatures([0], temperature=1.0, temperature_schedule="learned")
    with pytest.raises(UserError, match="--relaxation must have a temperature"):
        temperatures([0], 0, **(learned | {"relaxation": "simple"}))
