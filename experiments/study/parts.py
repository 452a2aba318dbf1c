"""Pieces of studies: jobs that several presets have."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.measuring.programs import PROGRAMS
from experiments.study.plan import Job, RunOf
from experiments.study.settings import (
    Context,
    Flags,
    adv_flags,
    circuit_flags,
    mmd_flags,
)


def job_of(
    context: Context, name: str, program: str, label: str, *parts: Mapping[str, Any]
) -> Job:
    """A training job; later parts win, and a flag that is None is left out."""
    flags: Flags = {"num_seeds": context.num_seeds, **context.data}
    for part in parts:
        flags |= part
    flags.setdefault("batch_size", context.scale.batch_size)
    flags.setdefault("eval_every", flags["num_steps"])
    flags.setdefault("checkpoint_every", max(flags["num_steps"] // 4, 1))
    if PROGRAMS[program].has_recipes:
        flags.setdefault("recipe", "none")
    flags = {name: value for name, value in flags.items() if value is not None}
    return Job(name, program, flags, label)


def evaluation_jobs(context: Context, jobs: Iterable[Job]) -> list[Job]:
    """Evaluations of all jobs that draw samples, where there is a judge."""
    if context.judge is None:
        return []
    common = {"classifier": context.judge, "num_samples": context.scale.num_samples}
    return [
        Job(f"evaluate {job.name}", "evaluate", {"run": RunOf(job.name), **common})
        for job in jobs
        if job.program != "classifier"
    ]


def with_evaluations(
    context: Context,
    jobs: Sequence[Job],
    *,
    classifiers: Sequence[Job] | None = None,
    evaluated: Iterable[Job] | None = None,
) -> list[Job]:
    """Jobs behind the classifiers that they need, and before their evaluations.

    Args:
        context: of the study.
        jobs: in the order in which they run.
        classifiers: run first; None: judge and critics.
        evaluated: the jobs that are evaluated; None: all of them.

    Returns:
        The plan.
    """
    if classifiers is None:
        classifiers = [*judge_jobs(context), *critic_jobs(context)]
    if evaluated is None:
        evaluated = jobs
    return [*classifiers, *jobs, *evaluation_jobs(context, evaluated)]


def judge_jobs(context: Context) -> list[Job]:
    """The classifier whose features measure, if the study trains it."""
    if context.judge != RunOf("judge"):
        return []
    steps = {"num_seeds": 1, "num_steps": context.scale.judge_steps, "batch_size": 128}
    label = "classifier whose features measure"
    return [job_of(context, "judge", "classifier", label, steps)]


def critic_jobs(context: Context, name: str = "critics", **extra: Any) -> list[Job]:
    """Small classifiers of other seeds, for a loss; never those that measure."""
    if context.critics != RunOf("critics"):
        return []
    flags: Flags = {
        "seed": 1,
        "num_seeds": 4,
        "num_steps": context.scale.critic_steps,
        "batch_size": 64,
        "classifier_filters": 8,
        "classifier_features": 64,
    }
    label = "classifiers whose features a loss sees"
    return [job_of(context, name, "classifier", label, flags, extra)]


def start_jobs(context: Context) -> list[Job]:
    """Likelihood with a large and with a small step size, to start from."""
    scale, ours = context.scale, circuit_flags(context)
    small_steps = {"learning_rate": 0.003, "num_steps": scale.start_steps}
    return [
        job_of(
            context, "first", "ll", "LL, step size 0.03", ours,
            {"num_steps": scale.first_steps},
        ),
        job_of(
            context, "start", "ll", "LL, step size 0.003", ours, small_steps,
            {"start_from": RunOf("first")},
        ),
    ]  # fmt: skip


def further_jobs(context: Context) -> list[Job]:
    """Likelihood alone, and with each loss on samples, from one start."""
    common: Flags = {
        **circuit_flags(context),
        "num_steps": context.scale.more_steps,
        "start_from": RunOf("start"),
        "pretrain_steps": 0,
        "ll_weight": 1.0,
        "sampler_learning_rate": 0.001,
    }
    no_loss = {"sample_weight": 0.0}
    balance = {"balance": "norm"}
    return [
        job_of(context, "likelihood", "mmd", "LL alone", common, no_loss),
        job_of(
            context, "mmd", "mmd", "LL and MMD on features", common, balance,
            mmd_flags(context),
        ),
        job_of(
            context, "adv", "adv", "LL and ADV on features", common, balance,
            adv_flags(context),
        ),
    ]  # fmt: skip


def network_jobs(context: Context) -> list[Job]:
    """Neural generators."""
    steps = {"num_steps": context.scale.network_steps}
    return [job_of(context, "gan", "gan", "GAN (network)", steps)]


def auto_encoder_jobs(context: Context) -> list[Job]:
    """PAE beside VAEs with as many parameters: 20 latents, as many as PAE, a free code.

    A latent stands beside each region of 2 x 2 pixels of the quad tree, whose sides are
    halved until they are 1: it counts as if they were powers of 2.
    """
    scale = context.scale
    latents = 4 ** ((context.height - 1).bit_length() - 1)
    steps = max(scale.pae_steps // 5, 1)
    circuit: Flags = {
        "pae_latents": latents,
        "num_sums": min(scale.units, 16),
        "num_leaves": min(scale.units, 16),
    }
    pae = {"pretrain_steps": steps, "num_steps": scale.pae_steps}
    vae = {**circuit, "match_params": "circuit", "num_steps": scale.network_steps}
    return [
        job_of(context, "pae", "pae", f"PAE, {latents} latents", circuit, pae),
        job_of(context, "vae", "vae", "VAE, 20 latents", vae),
        job_of(
            context, "vae_wide", "vae", f"VAE, {latents} latents", vae,
            {"vae_latents": latents},
        ),
        job_of(
            context, "vae_free", "vae", "VAE, 64 latents, KL times 0.1", vae,
            {"vae_latents": 64, "vae_kl_weight": 0.1},
        ),
    ]  # fmt: skip
