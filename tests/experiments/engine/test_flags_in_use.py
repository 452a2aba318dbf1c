"""A flag that does nothing beside the others is refused, with the name of both."""

import importlib
from pathlib import Path

import pytest

from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.program import Program

ROOT = Path(__file__).parents[3]
NAMES = ("ll", "mmd", "adv", "pae", "gan", "mmd_gan", "vae", "ade", "classifier")


def program(name: str) -> Program:
    return importlib.import_module(f"experiments.{name}").PROGRAM


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "ll",
            "--depth=40",
            "--depth must go with --structure=random_binary_trees, got 40 with "
            "--structure=quad_graph",
        ),
        (
            "ll",
            "--leaf=binomial --leaf_max_scale=2",
            "--leaf_max_scale must go with --leaf=normal, got 2.0 with --leaf=binomial",
        ),
        (
            "ll",
            "--optimizer=em --learning_rate=0.1",
            "--learning_rate must go with --optimizer=adam, got 0.1 with "
            "--optimizer=em",
        ),
        (
            "adv",
            "--temperature_floor=0.1",
            "--temperature_floor must go with --temperature_schedule=annealed, got 0.1 "
            "with --temperature_schedule=constant",
        ),
        (
            "gan",
            "--adv_filters=8",
            "--adv_filters must go with --adv_discriminator=conv, got 8 with "
            "--adv_discriminator=mlp",
        ),
        (
            "mmd_gan",
            "--mmd_linear_weight=2",
            "--mmd_linear_weight must go with --mmd_kernel=gradient_penalty, got 2.0 "
            "with --mmd_kernel=autoencoder",
        ),
        (
            "ade",  # not in use, since what it belongs to is not
            "--mmd_estimator=biased",
            "--mmd_estimator must go with --sample_loss=mmd, got 'biased' with "
            "--sample_loss=adv",
        ),
    ],
)
def test_a_flag_without_use_is_refused(name: str, words: str, message: str):
    with pytest.raises(UserError) as caught:
        program(name).parse([name, *words.split()])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ll", "--depth=4"),  # its default
        ("ll", "--structure=random_binary_trees --depth=2 --num_repetitions=3"),
        ("adv", "--leaf=binomial --leaf_max_scale=2 --adv_discriminator=circuit"),
        ("ade", "--sample_loss=mmd --mmd_estimator=biased --mmd_power=1"),
        ("adv", "--relaxation=dense --temperature_schedule=annealed"),
        ("mmd", "--mmd_estimator=biased"),  # no --sample_loss in this program
    ],
)
def test_flags_in_use_are_taken(name: str, words: str):
    program(name).parse([name, *words.split()])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_flag_belongs_to_exists(name: str):
    """Names and values, in some program that has both flags."""
    fields = {field.name: field for field in flags.fields_of(program(name).groups)}
    for field in fields.values():
        for other, wanted in field.metadata["only"].items():
            if other in fields:
                requirement = fields[other].metadata["requirement"]
                assert any(requirement.holds(value) for value in wanted)
                kind = fields[other].metadata["kind"]
                assert all(isinstance(value, kind) for value in wanted)
