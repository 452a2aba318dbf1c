"""Plans of studies: every preset is a legal plan, and no job runs twice."""

import json
from pathlib import Path

import jax
import pytest

from experiments import data, study
from experiments.console.errors import UserError
from experiments.engine import workdir
from experiments.engine.flags import Settings
from experiments.measuring.programs import PROGRAMS
from experiments.study import plan
from experiments.study.plan import Job, RunOf
from experiments.study.presets import PRESETS
from experiments.study.settings import SCALES, Context

ROOT = Path("out/study")


def jobs_of(
    preset: str, *, has_labels: bool = True, scale: str = "cpu", height: int = 28
) -> list[Job]:
    networks = (RunOf("judge"), RunOf("critics")) if has_labels else (None, None)
    context = Context({"dataset": "digits"}, *networks, 2, SCALES[scale], height)
    return PRESETS[preset](context)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("has_labels", [True, False])
def test_every_preset_is_a_plan_that_its_programs_accept(preset, has_labels):
    for scale in SCALES if has_labels else ["cpu"]:
        plan.check(jobs_of(preset, has_labels=has_labels, scale=scale), ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_flags_of_every_preset_fit_one_another(preset):
    # A parser looks at one flag at a time; a program's system at all of them.
    digits = data.load("digits", None)
    commands = set()
    for job in jobs_of(preset, scale="smoke", height=8):
        flags = {n: v for n, v in job.flags.items() if not isinstance(v, RunOf)}
        for name in ("mmd_kernel", "adv_discriminator"):
            if flags.get(name) == "classifier":
                del flags[name]  # there is none yet
        job = Job("job", job.program, flags)
        command = tuple(job.command(ROOT))
        if job.trains and command not in commands:
            commands.add(command)
            program = PROGRAMS[job.program]
            system = program.make_system(*program.parse(list(command)), dataset=digits)
            jax.eval_shape(system.init, jax.random.key(0))
    assert commands


@pytest.mark.parametrize("preset", PRESETS)
def test_a_set_without_labels_needs_no_classifier(preset):
    programs = {job.program for job in jobs_of(preset, has_labels=False)}
    assert not programs & {"classifier", "evaluate"}


def test_classifiers_from_elsewhere_are_not_trained_again():
    context = Context({"dataset": "digits"}, "a/b", "a/c", 2, SCALES["cpu"], 28)
    jobs = {job.name: job for job in PRESETS["best"](context)}
    assert "judge" not in jobs
    assert "critics" not in jobs
    assert jobs["mmd"].flags["mmd_classifier"] == "a/c"
    assert jobs["evaluate mmd"].flags["classifier"] == "a/b"


def test_variants_have_one_start_and_as_many_steps():
    by_name = {job.name: dict(job.flags) for job in jobs_of("best")}
    likelihood = by_name["likelihood"]
    assert likelihood.pop("sample_weight") == 0.0
    discriminator = ("adv_discriminator", "adv_classifier", "adv_loss")
    kernel = ("mmd_kernel", "mmd_classifier")
    for name, loss in (("mmd", kernel), ("adv", discriminator)):
        hybrid = by_name[name]
        assert hybrid.pop("balance") == "norm"
        assert hybrid == likelihood | {flag: hybrid[flag] for flag in loss}
    assert likelihood["start_from"] == RunOf("start")


@pytest.mark.parametrize("preset", ["temperature", "data_efficiency", "convergence"])
def test_hybrids_take_as_many_and_as_large_steps_as_likelihood(preset):
    jobs = [job for job in jobs_of(preset) if job.program in ("ll", "adv", "mmd")]
    assert {job.program for job in jobs} == {"ll", "adv", "mmd"}
    default = Settings().learning_rate
    for job in jobs:
        assert job.flags["num_steps"] == jobs[0].flags["num_steps"]
        assert job.flags.get("learning_rate", default) == default
        if job.program != "ll":
            assert job.flags["sampler_learning_rate"] == default
            assert job.flags["pretrain_steps"] == jobs[0].flags["num_steps"] // 2


@pytest.mark.parametrize("preset", ["temperature", "corrected"])
def test_temperatures_are_annealed_in_the_steps_that_have_samples(preset):
    jobs = [
        job.flags
        for job in jobs_of(preset)
        if job.flags.get("temperature_schedule") == "annealed"
    ]
    assert jobs
    for flags in jobs:  # the schedule begins after pre-training
        steps = flags["num_steps"] - flags["pretrain_steps"]
        assert flags["temperature_decay_steps"] == steps


def test_the_judge_trains_nothing():
    for preset in PRESETS:
        jobs = {job.name: job for job in jobs_of(preset)}
        for job in jobs.values():
            assert job.program == "evaluate" or "judge" not in job.needs
        seeds = [
            set(range(flags.get("seed", 0), flags.get("seed", 0) + flags["num_seeds"]))
            for name, flags in ((n, j.flags) for n, j in jobs.items())
            if name == "judge" or name.startswith("critics")
        ]
        assert all(not seeds[0] & critic_seeds for critic_seeds in seeds[1:])


def test_one_correction_changes_one_thing():
    jobs = {job.name: dict(job.flags) for job in jobs_of("corrected")}
    for program in ("adv", "mmd"):
        paper = jobs[f"{program}_the_papers"]
        local = jobs[f"{program}_with_locality"]
        differing = {n for n in paper | local if paper.get(n) != local.get(n)}
        assert differing == {"structure", "sum_layer"}
        ours, less = (jobs[f"{program}_ours{n}"] for n in ("", "_without_likelihood"))
        differing = {n for n in ours | less if ours.get(n) != less.get(n)}
        assert differing >= {"ll_weight", "pretrain_steps"}
        assert differing <= {
            *("ll_weight", "pretrain_steps", "balance", "sampler_learning_rate")
        }


def test_overrides_reach_every_job_that_knows_the_flag():
    overrides = {"num_sums": "3", "pae_latents": "5", "num_samples": "77"}
    jobs = plan.with_overrides(jobs_of("best"), overrides)
    for job in jobs:
        if job.program == "evaluate":
            assert job.flags["num_samples"] == 77
        if job.program in ("ll", "mmd", "adv", "pae"):
            assert job.flags["num_sums"] == 3
        assert job.flags.get("pae_latents", 5) == 5
        assert job.program != "classifier" or "num_sums" not in job.flags
    with pytest.raises(UserError, match="--override must name flags.*no_such_flag"):
        plan.with_overrides(jobs, {"no_such_flag": "1"})
    message = (
        "flags that do something in some job, got 'em_momentum': --em_momentum must go "
        "with --optimizer=em, got 0.5 with --optimizer=adam"
    )
    with pytest.raises(UserError, match=message):
        plan.with_overrides(jobs, {"num_sums": "3", "em_momentum": "0.5"})
    message = "--protocol must go with --inception .*of the job evaluate "
    with pytest.raises(UserError, match=message):
        plan.with_overrides(jobs, {"protocol": "paper"})
    invalid = plan.with_overrides(jobs, {"num_sums": "many"})
    message = "--num_sums must be a whole number.*of the job first"
    with pytest.raises(UserError, match=message):
        plan.check(invalid, ROOT)


def test_a_chosen_job_brings_what_it_needs():
    names = [job.name for job in plan.with_needs(jobs_of("best"), ["evaluate adv"])]
    assert names == ["judge", "critics", "first", "start", "adv", "evaluate adv"]


def test_a_plan_in_the_wrong_order_is_an_error():
    first = Job("first", "ll", {"dataset": "digits"})
    second = Job("second", "ll", {"dataset": "digits", "start_from": RunOf("first")})
    with pytest.raises(ValueError, match="follow those that they need, got 'second'"):
        plan.check([second, first], ROOT)
    with pytest.raises(ValueError, match="unique names .* got 'first'"):
        plan.check([first, first], ROOT)


def test_a_job_is_done_when_its_result_is_of_its_flags(tmp_path):
    job = Job("a", "ll", {"num_steps": 20, "num_sums": 3, "start_from": RunOf("b")})
    folder = tmp_path / "a"
    folder.mkdir()
    assert not job.is_done(tmp_path)
    flags = {"num_steps": 20, "num_sums": 3, "start_from": str(tmp_path / "b")}
    (folder / "config.json").write_text(json.dumps({"flags": flags}))
    assert not job.is_done(tmp_path)
    (folder / "result.json").write_text('{"step": 10}')
    assert not job.is_done(tmp_path)
    (folder / "result.json").write_text('{"step": 30}')  # of a longer run
    assert not job.is_done(tmp_path)
    (folder / "result.json").write_text('{"step": 30, "stopped_step": 30}')
    assert not job.is_done(tmp_path)
    for early in (20, 15):
        (folder / "result.json").write_text(
            json.dumps({"step": early, "stopped_step": early})
        )
        assert job.is_done(tmp_path)
    (folder / "result.json").write_text('{"step": 20}')
    assert job.is_done(tmp_path)
    evaluation_flags = {"run": RunOf("a"), "num_samples": 7, "classifier": "judge"}
    evaluation = Job("evaluate a", "evaluate", evaluation_flags)
    assert evaluation.command(tmp_path)[1] == f"--run={folder}"
    assert not evaluation.is_done(tmp_path)
    values = {"run": str(folder), "num_samples": 7, "classifier": "judge"}
    for content, is_done in (
        ({"step": 20, "flags": values | {"sample_seed": 0}}, True),
        ({"step": 20, "flags": values | {"num_samples": 8}}, False),
        ({"step": 20, "flags": values | {"classifier": "another"}}, False),
        ({"step": 10, "flags": values}, False),
        ({"step": 20}, False),
        ([], False),
    ):
        (folder / "evaluation.json").write_text(json.dumps(content))
        assert evaluation.is_done(tmp_path) is is_done
    (folder / "config.json").write_text(json.dumps({"flags": flags | {"num_sums": 4}}))
    assert not job.is_done(tmp_path)


def test_bad_flags_are_named_before_anything_runs(tmp_path):
    root = tmp_path / "out"
    for arguments, message in (
        (["--preset=none"], "--preset must be one of smoke"),
        (["--scale=none"], "--scale must be one of smoke"),
        (["--override=num_sums"], "--override must be like"),
        (["--judge=a", "--critics=./a"], "--critics must not be the judge"),
        ([f"--critics={tmp_path}/out/judge"], "--critics must not be the judge"),
        (["--only=judge,nobody"], "--only must name jobs of the study: .*, got nobody"),
        (["--override=pae_latents=3", "--only=first"], "--override must name flags"),
        (["--preset=paper", "--critics=a"], "--critics must go with a --preset and"),
        (["--judge=a", "--only=first"], "--judge must .* got 'a' .* --only=first"),
        (["--num_seeds=2", "--only=judge"], "--num_seeds must go with .* got 2 with"),
        (["--dataset=mnist", "--data_dir=/nowhere"], "--data_dir must be an existing"),
    ):
        with pytest.raises(UserError, match=message):
            study.main(study.parse(["study", f"--workdir={root}", *arguments]))
    assert not root.exists()


def test_the_dry_run_shows_commands_and_runs_none(tmp_path, capsys):
    root = tmp_path / "out"
    arguments = [f"--workdir={root}", "--dry_run=1", "--only=evaluate likelihood"]
    assert study.main(study.parse(["study", *arguments])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# judge"
    assert lines[-1].startswith("python -m experiments.evaluate --run=")
    assert not root.exists()


def test_one_study_a_folder(tmp_path):
    with workdir.alone(tmp_path), pytest.raises(UserError, match="is in use by"):
        study.main(study.parse(["study", f"--workdir={tmp_path}", "--only=judge"]))
