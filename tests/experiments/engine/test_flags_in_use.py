"""A flag that does nothing beside the others is refused, with the name of both."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.program import Program
from experiments.engine.requirements import Requirement

ROOT = Path(__file__).parents[3]
NAMES = ("ll", "mmd", "adv", "pae", "gan", "mmd_gan", "vae", "ade", "classifier")


def program(name: str) -> Program:
    return importlib.import_module(f"experiments.{name}").PROGRAM


def parse(name: str, words: str) -> list[Any]:
    return importlib.import_module(f"experiments.{name}").parse([name, *words.split()])


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
        (
            "ll",
            "--optimizer=em --em_smooth_towards=uniform --em_pseudocount=0 "
            "--em_leaf_pseudocount=0",
            "--em_smooth_towards must go with --em_pseudocount (must be greater than "
            "0), got 'uniform' with --em_pseudocount=0.0",
        ),
        (
            "ll",
            "--optimizer=em --leaf=binomial --em_leaf_spread=1",
            "--em_leaf_spread must go with --leaf=categorical, got 1.0 with "
            "--leaf=binomial",
        ),
        (
            "ll",
            "--optimizer=adam --em_leaf_spread=1",
            "--em_leaf_spread must go with --optimizer=em, got 1.0 with "
            "--optimizer=adam",
        ),
        (
            "pae",  # whose default is no pre-training
            "--learning_rate=0.1",
            "--learning_rate must go with --pretrain_steps (must be at least 1), got "
            "0.1 with --pretrain_steps=0",
        ),
        (
            "pae",
            "--relaxation=dense --temperature=0.5",
            "--relaxation must go with --pae_encode=sample, got 'dense' with "
            "--pae_encode=mean",
        ),
        (
            "mmd",
            "--mmd_estimator=exact --relaxation=dense",
            "--relaxation must go with --mmd_estimator=unbiased or biased, got "
            "'dense' with --mmd_estimator=exact",
        ),
        (
            "gan",
            "--num_sums=8",
            "--num_sums must go with --match_params=circuit, got 8 with "
            "--match_params=none",
        ),
        (
            "vae",
            "--pae_latents=8",
            "--pae_latents must go with --match_params=circuit, got 8 with "
            "--match_params=none",
        ),
        (
            "ade",
            "--density=vae --density_width=8 --num_sums=8",
            "--num_sums must go with --density=circuit, got 8 with --density=vae",
        ),
        (
            "ll",
            "--data_dir=/data",
            "--data_dir must go with --dataset=mnist or svhn or cifar10 or celeba or "
            "folder or debd, got '/data' with --dataset=digits",
        ),
        (
            "ll",
            "--dataset=folder --data_source=files",
            "--data_source must go with --dataset=mnist or svhn or cifar10 or celeba, "
            "got 'files' with --dataset=folder",
        ),
        (
            "ll",
            "--dataset=mnist --data_source=files --cache_dir=/cache",
            "--cache_dir must go with --dataset=celeba or folder, got '/cache' with "
            "--dataset=mnist",
        ),
        (
            "evaluate",
            "--run=a --classifier=b --protocol=paper",
            "--protocol must go with --inception (must be given), got 'paper' with "
            "--inception=None",
        ),
        (
            "evaluate",
            "--run=a --inception=download --cas_steps=50",
            "--cas_steps must go with --classifier (must be given), got 50 with "
            "--classifier=None",
        ),
        (
            "synthetic",
            "--init=random --init_spread=1",
            "--init_spread must go with --init=data, got 1.0 with --init=random",
        ),
        (
            "synthetic",  # whose means are random
            "--preset=paper --init_spread=1",
            "--init_spread must go with --init=data, got 1.0 with --init=random",
        ),
        (
            "synthetic",
            "--temperature=2",
            "--temperature must go with --relaxation=gumbel_softmax or "
            "straight_through or gumbel_rao or reinmax or dense or rebar, got 2.0 with "
            "--relaxation=score_pathwise",
        ),
        (
            "synthetic",
            "--objectives=ll,exact_mmd --mmd_power=1",
            "--mmd_power must go with --objectives (must name mmd), got 1 with "
            "--objectives=ll,exact_mmd",
        ),
        (
            "synthetic",  # not in use, since what it belongs to is not
            "--objectives=ll --adv_leaves=3",
            "--adv_leaves must go with --objectives (must name adv), got 3 with "
            "--objectives=ll",
        ),
        (
            "synthetic",
            "--objectives=adv --learning_rate=1",
            "--learning_rate must go with --objectives (must name ll or mmd or "
            "exact_mmd), got 1.0 with --objectives=adv",
        ),
        (
            "synthetic",
            "--adv_hidden=8",
            "--adv_hidden must go with --adv_discriminator=mlp, got '8' with "
            "--adv_discriminator=circuit",
        ),
        (
            "study",
            "--data_dir=/data",
            "--data_dir must go with --dataset=mnist or svhn or cifar10 or celeba or "
            "folder or debd, got '/data' with --dataset=digits",
        ),
    ],
)
def test_a_flag_without_use_is_refused(name: str, words: str, message: str):
    with pytest.raises(UserError) as caught:
        parse(name, words)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *((name, "--sharpness=2") for name in ("gan", "mmd_gan", "vae", "classifier")),
        *((name, "--optimizer=em") for name in ("gan", "vae", "classifier", "ade")),
        *(("classifier", word) for word in ("--num_sums=8", "--leaf=binomial")),
        *(("ll", word) for word in ("--relaxation=dense", "--leaf_noise=variance")),
        *(("gan", "--relaxation=dense"), ("pae", "--start=distill")),
    ],
)
def test_a_flag_that_a_program_never_uses_is_none_of_its_own(name: str, word: str):
    with pytest.raises(UserError, match="Unknown command line flag"):
        parse(name, word)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gan", "--match_params=circuit --num_sums=8 --leaf=binomial"),
        ("gan", "--adv_discriminator=circuit --structure=quad_graph"),
        ("vae", "--match_params=circuit --pae_latents=8 --num_leaves=4"),
        ("ade", "--density=vae --num_sums=8"),
        ("mmd", "--mmd_kernel=autoencoder --relaxation=dense"),
        ("pae", "--pretrain_steps=5 --learning_rate=0.1 --optimizer=adam"),
        ("pae", "--pae_decode=leaf_mean --relaxation=dense --temperature=0.5"),
        ("ll", "--optimizer=em --em_pseudocount=1 --em_smooth_towards=uniform"),
        ("ll", "--depth=4"),  # its default
        ("ll", "--structure=random_binary_trees --depth=2 --num_repetitions=3"),
        ("adv", "--leaf=binomial --leaf_max_scale=2 --adv_discriminator=circuit"),
        ("ade", "--sample_loss=mmd --mmd_estimator=biased --mmd_power=1"),
        ("adv", "--relaxation=dense --temperature_schedule=annealed"),
        ("mmd", "--mmd_estimator=biased"),  # no --sample_loss in this program
        ("ll", "--dataset=mnist --data_dir=/data --cache_dir=/cache"),
        ("ll", "--dataset=celeba --data_source=files --cache_dir=/cache"),
        ("evaluate", "--inception=download --protocol=paper"),
        ("evaluate", "--classifier=a --cas_steps=0"),
        ("synthetic", "--preset=paper --temperature=2 --adv_hidden=4"),
        ("synthetic", "--preset=paper --init=data --init_spread=1"),
        ("synthetic", "--objectives=ll,mmd --bandwidths=1 --relaxation=simple"),
    ],
)
def test_flags_in_use_are_taken(name: str, words: str):
    parse(name, words)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_flag_belongs_to_exists(name: str):
    """Names and values, in some program that has both flags."""
    fields = {field.name: field for field in flags.fields_of(program(name).groups)}
    for field in fields.values():
        for condition in field.metadata["only"]:
            check_condition(condition, fields)
    use = program(name).use
    assert set(use.without) | set(use.only) <= set(fields)
    assert not set(use.without) & set(use.only)
    for condition in use.only.values():
        assert set(condition) <= set(fields) - set(use.without)
        check_condition(condition, fields)


def check_condition(condition, fields):
    for other, wanted in condition.items():
        if other in fields and not isinstance(wanted, Requirement):
            requirement = fields[other].metadata["requirement"]
            assert any(value is None or requirement.holds(value) for value in wanted)
            kind = fields[other].metadata["kind"]
            assert all(value is None or isinstance(value, kind) for value in wanted)
