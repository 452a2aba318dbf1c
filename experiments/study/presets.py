"""The studies: what runs, declared. Numbers of steps come from a `Scale`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from experiments.study.plan import Job, Of

Flags = dict[str, Any]


class Scale(NamedTuple):
    """How much of everything.

    Attributes:
        units: sum units and leaves a region of our circuits.
        batch_size: images a step.
        judge_steps: of the classifier whose features measure.
        critic_steps: of the classifiers whose features a loss sees.
        first_steps: likelihood, large step size.
        start_steps: likelihood, small step size: the start of what is compared.
        more_steps: of likelihood alone and of likelihood with a loss on samples.
        network_steps: of neural generators and variational auto-encoders.
        pae_steps: of probabilistic auto-encoding, a fifth of it likelihood alone.
        ladder_steps: of each run of ``paper``, ``corrected``, ``temperature``,
            ``grid``, ``data_efficiency`` and ``convergence``.
        num_samples: of each seed, to measure.
    """

    units: int
    batch_size: int
    judge_steps: int
    critic_steps: int
    first_steps: int
    start_steps: int
    more_steps: int
    network_steps: int
    pae_steps: int
    ladder_steps: int
    num_samples: int


SCALES = {
    "smoke": Scale(4, 32, 200, 100, 60, 20, 20, 50, 40, 20, 300),
    "digits": Scale(16, 64, 2000, 600, 400, 200, 200, 4000, 800, 600, 4000),
    "cpu": Scale(64, 64, 4000, 3000, 1500, 700, 500, 4000, 1000, 400, 10_000),
    "gpu": Scale(256, 256, 10_000, 5000, 10_000, 5000, 5000, 50_000, 10_000, 20_000,
                 10_000),
}  # fmt: skip


class Context(NamedTuple):
    """What a preset is applied to.

    Attributes:
        data: the flags that name the images.
        judge: the classifier whose features measure: `Of` a job of the study, the
            folder of a run elsewhere, or None: there is none.
        critics: classifiers whose features a loss sees, likewise.
        num_seeds: trained together, of every run but the judge.
        scale: how much of everything.
        height: rows of an image.
    """

    data: Mapping[str, Any]
    judge: Of | str | None
    critics: Of | str | None
    num_seeds: int
    scale: Scale
    height: int


# -- settings -------------------------------------------------------------------------

# The circuit of the paper, as its scripts have it, and the one of ours.
_RAT: Flags = {
    "structure": "random_binary_trees",
    "depth": 4,
    "num_repetitions": 10,
    "num_sums": 20,
    "num_leaves": 20,
    "sum_layer": "tucker",
    "leaf": "binomial",
}
_BALANCED: Flags = {"ll_weight": 1.0, "balance": "norm", "sampler_learning_rate": 0.001}

# The paper's objectives, faults included: soft samples, the variance in the place of
# the deviation, no likelihood, fully connected discriminator, fixed bandwidths on the
# features of a clipped auto-encoder, hard-coded step sizes and constant temperatures.
_SOFT: Flags = {"relaxation": "gumbel_softmax", "leaf_noise": "variance"}
_ALONE: Flags = {"pretrain_steps": 0, "ll_weight": 0.0}
_PAPER_ADV: Flags = {
    **_SOFT,
    **_ALONE,
    "temperature": 0.5,
    "sampler_learning_rate": 1e-4,
    "adv_discriminator": "mlp",
    "adv_learning_rate": 2e-4,
    "adv_r1_weight": 0.0,
}
_PAPER_MMD: Flags = {
    **_SOFT,
    **_ALONE,
    "temperature": 0.05,
    "sampler_learning_rate": 0.01,
    "mmd_kernel": "autoencoder",
}
_PAPER_PAE: Flags = {
    **_SOFT,
    **_ALONE,
    "temperature": 0.5,
    "learning_rate": 1e-4,
    "sampler_learning_rate": 1e-4,
    "pae_encode": "sample",
    "pae_decode": "sample",
    "pae_latents": 20,
}

_CONV: Flags = {
    "adv_discriminator": "conv",
    "adv_learning_rate": None,
    "adv_r1_weight": None,
}


def _annealed(context: Context) -> Flags:
    """As the paper says: max(0.5, exp(-t)), t from 0 to 1."""
    return {
        "temperature": 1.0,
        "temperature_schedule": "annealed",
        "temperature_decay_steps": context.scale.ladder_steps,
    }


class Correction(NamedTuple):
    """One thing that is done otherwise than in the paper.

    Attributes:
        title: in words.
        adv: flags that change in the paper's ADV.
        mmd: flags that change in the paper's MMD.
        is_used: whether it is part of ours; else it is shown alone only.
    """

    title: str
    adv: Flags
    mmd: Flags
    is_used: bool = True


def _corrections(context: Context) -> list[Correction]:
    """Each for `Scale.ladder_steps`, of which likelihood takes the first half."""

    def both(title: str, flags: Flags, is_used: bool = True) -> Correction:
        return Correction(title, flags, flags, is_used)

    leaves = {"leaf": "discretized_logistic", "leaf_noise": "deviation"}
    half = {"pretrain_steps": context.scale.ladder_steps // 2}
    rate = {"sampler_learning_rate": 0.003}
    return [
        both("deviation", {"leaf_noise": "deviation"}),
        both("annealing", _annealed(context), is_used=False),  # hard samples: no need
        both("hard samples", {"relaxation": "simple", "temperature": 1.0}),
        both("locality", {"structure": "quad_tree", "sum_layer": "cp"}),
        both("leaves", leaves),
        Correction("step size", rate, {"sampler_learning_rate": 0.001}),
        Correction("critic", _CONV, _perceptual(context)),
        both("likelihood", {**_BALANCED, **half}),
    ]


def _union(corrections: Iterable[Correction]) -> tuple[Flags, Flags]:
    """Corrections together: flags of ADV, and of MMD; later ones win."""
    adv: Flags = {}
    mmd: Flags = {}
    for correction in corrections:
        adv |= correction.adv
        mmd |= correction.mmd
    return adv, mmd


# -- parts ----------------------------------------------------------------------------


def _job(
    context: Context, name: str, program: str, label: str, *parts: Mapping[str, Any]
) -> Job:
    """A training job; later parts win, and a flag that is None is left out."""
    flags: Flags = {"num_seeds": context.num_seeds, **context.data}
    for part in parts:
        flags |= part
    flags.setdefault("batch_size", context.scale.batch_size)
    flags.setdefault("eval_every", flags["num_steps"])
    flags.setdefault("checkpoint_every", max(flags["num_steps"] // 4, 1))
    flags = {name: value for name, value in flags.items() if value is not None}
    return Job(name, program, flags, label)


def _ours(context: Context) -> Flags:
    """Our circuit: quad tree, one product a unit, discretised logistic leaves."""
    units = context.scale.units
    return {"leaf": "discretized_logistic", "num_sums": units, "num_leaves": units}


def _measured(context: Context, jobs: Iterable[Job]) -> list[Job]:
    """Evaluations of all jobs that draw samples, where there is a judge."""
    if context.judge is None:
        return []
    common = {"classifier": context.judge, "num_samples": context.scale.num_samples}
    return [
        Job(f"evaluate {job.name}", "evaluate", {"run": Of(job.name), **common})
        for job in jobs
        if job.program != "classifier"
    ]


def _judge(context: Context) -> list[Job]:
    if context.judge != Of("judge"):
        return []
    steps = {"num_seeds": 1, "num_steps": context.scale.judge_steps, "batch_size": 128}
    label = "classifier whose features measure"
    return [_job(context, "judge", "classifier", label, steps)]


def _critics(context: Context, name: str = "critics", **more: Any) -> list[Job]:
    """Small classifiers of other seeds, for a loss; never those that measure."""
    if context.critics != Of("critics"):
        return []
    small: Flags = {
        "seed": 1,
        "num_seeds": 4,
        "num_steps": context.scale.critic_steps,
        "batch_size": 64,
        "classifier_filters": 8,
        "classifier_features": 64,
    }
    label = "classifiers whose features a loss sees"
    return [_job(context, name, "classifier", label, small, more)]


def _start(context: Context) -> list[Job]:
    scale, ours = context.scale, _ours(context)
    small = {"learning_rate": 0.003, "num_steps": scale.start_steps}
    return [
        _job(
            context, "first", "ll", "LL, step size 0.03", ours,
            {"num_steps": scale.first_steps},
        ),
        _job(
            context, "start", "ll", "LL, step size 0.003", ours, small,
            {"start_from": Of("first")},
        ),
    ]  # fmt: skip


def _perceptual(context: Context) -> Flags:
    """Our MMD: on classifiers' features, or on pixels where there are none."""
    if context.critics is None:
        return {"mmd_kernel": "pixel"}
    return {"mmd_kernel": "classifier", "mmd_classifier": context.critics}


def _further(context: Context) -> list[Job]:
    """Likelihood alone, and with each loss on samples, from one start."""
    common: Flags = {
        **_ours(context),
        "num_steps": context.scale.more_steps,
        "start_from": Of("start"),
        "pretrain_steps": 0,
        "ll_weight": 1.0,
        "sampler_learning_rate": 0.001,
    }
    alone = {"sample_weight": 0.0}
    balanced = {"balance": "norm"}
    return [
        _job(context, "likelihood", "mmd", "LL alone", common, alone),
        _job(
            context, "mmd", "mmd", "LL and MMD on features", common, balanced,
            _perceptual(context),
        ),
        _job(context, "adv", "adv", "LL and ADV", common, balanced),
    ]  # fmt: skip


def _networks(context: Context) -> list[Job]:
    steps = {"num_steps": context.scale.network_steps}
    return [_job(context, "gan", "gan", "GAN (network)", steps)]


def _auto_encoders(context: Context) -> list[Job]:
    """PAE beside VAEs with as many parameters: 20 latents, and as many as PAE."""
    scale, latents = context.scale, (context.height // 2) ** 2
    steps = max(scale.pae_steps // 5, 1)
    circuit: Flags = {
        "pae_latents": latents,
        "num_sums": min(scale.units, 16),
        "num_leaves": min(scale.units, 16),
    }
    pae = {"pretrain_steps": steps, "num_steps": scale.pae_steps}
    vae = {**circuit, "match_params": "circuit", "num_steps": scale.network_steps}
    return [
        _job(context, "pae", "pae", f"PAE, {latents} latents", circuit, pae),
        _job(context, "vae", "vae", "VAE, 20 latents", vae),
        _job(
            context, "vae_wide", "vae", f"VAE, {latents} latents", vae,
            {"vae_latents": latents},
        ),
    ]  # fmt: skip


# -- presets --------------------------------------------------------------------------


def best(context: Context) -> list[Job]:
    """Likelihood with losses on samples against likelihood alone, PAE, networks."""
    before = [*_judge(context), *_critics(context), *_start(context)]
    steps = {"num_steps": context.scale.first_steps + context.scale.start_steps}
    rat = {**_RAT, "leaf": "discretized_logistic", **steps, "learning_rate": 0.01}
    trained = [
        *_further(context),
        _job(context, "rat", "ll", "LL, the paper's structure", rat),
        *_networks(context),
    ]
    auto_encoders = _auto_encoders(context)
    return [*before, *trained, *_measured(context, trained), *auto_encoders]


def paper(context: Context) -> list[Job]:
    """The paper's objectives as published, faults included, and its networks."""
    steps = {"num_steps": context.scale.ladder_steps}
    ll = {**_RAT, "learning_rate": 0.2}
    jobs = [
        _job(context, "paper_ll", "ll", "LL", ll, steps),
        _job(context, "paper_adv", "adv", "ADV", _RAT, _PAPER_ADV, steps),
        _job(context, "paper_mmd", "mmd", "MMD", _RAT, _PAPER_MMD, steps),
        _job(context, "paper_pae", "pae", "PAE", _paper_pae(), steps),
        _job(context, "paper_gan", "gan", "GAN (network)", steps),
        _job(context, "paper_mmd_gan", "mmd_gan", "MMD-GAN (network)", steps),
        _job(context, "paper_vae", "vae", "VAE (network)", steps),
    ]
    return [*_judge(context), *jobs, *_measured(context, jobs)]


def _paper_pae() -> Flags:
    return {**_PAPER_PAE, "num_sums": 20, "num_leaves": 20}


def corrected(context: Context) -> list[Job]:
    """The paper's ADV and MMD with one thing changed; ours with one left as it was."""
    steps = {"num_steps": context.scale.ladder_steps}
    corrections = _corrections(context)
    used = [c for c in corrections if c.is_used]
    rungs: list[tuple[str, Flags, Flags]] = [("the paper's", {}, {})]
    rungs += [(f"with {c.title}", c.adv, c.mmd) for c in corrections]
    rungs.append(("ours", *_union(used)))
    for left_out in used:
        if left_out.title != "deviation":  # other leaves than binomial have no such
            others = (c for c in used if c is not left_out)
            rungs.append((f"ours without {left_out.title}", *_union(others)))
    jobs = [
        _job(context, "paper_ll", "ll", "LL", _RAT, {"learning_rate": 0.2}, steps),
        _job(context, "rat_ll", "ll", "LL, step size 0.03", _RAT, steps),
    ]
    for program, paper_flags in (("adv", _PAPER_ADV), ("mmd", _PAPER_MMD)):
        for title, adv, mmd in rungs:
            change = adv if program == "adv" else mmd
            name = f"{program}_{title.replace(' ', '_').replace(chr(39), '')}"
            label = f"{program.upper()}: {title}"
            base = {**_RAT, **steps, **paper_flags}
            jobs.append(_job(context, name, program, label, base, change))
    ours = {**_RAT, **steps, **_PAPER_MMD, **_union(used)[1], "sample_weight": 0.0}
    jobs.append(_job(context, "ours_ll", "mmd", "ours, likelihood alone", ours))
    before = [*_judge(context), *_critics(context)]
    return [*before, *jobs, *_measured(context, jobs)]


def temperature(context: Context) -> list[Job]:
    """Table 4 of the paper, for soft samples and for hard ones."""
    common: Flags = {
        **_ours(context),
        **_BALANCED,
        "num_steps": context.scale.ladder_steps,
        "pretrain_steps": context.scale.ladder_steps // 2,
    }
    objectives: list[tuple[str, Flags]] = [("adv", {}), ("mmd", _perceptual(context))]
    jobs = []
    for program, own in objectives:
        for relaxation in ("gumbel_softmax", "straight_through"):
            for title, flags in _temperatures(context).items():
                jobs.append(
                    _job(
                        context,
                        f"{program}_{relaxation}_{title}",
                        program,
                        f"{program.upper()}, {relaxation}, temperature {title}",
                        common,
                        own,
                        {"relaxation": relaxation, **flags},
                    )
                )
    before = [*_judge(context), *_critics(context)]
    return [*before, *jobs, *_measured(context, jobs)]


def _temperatures(context: Context) -> dict[str, Flags]:
    return {
        "0.05": {"temperature": 0.05},
        "0.5": {"temperature": 0.5},
        "1": {"temperature": 1.0},
        "annealed": _annealed(context),
        "learned": {"temperature": 0.5, "temperature_schedule": "learned"},
    }


def grid(context: Context) -> list[Job]:
    """Tables 7 to 10 of the paper: step size by batch size."""
    steps = {"num_steps": context.scale.ladder_steps}
    half = {"pretrain_steps": context.scale.ladder_steps // 2}
    programs: list[tuple[str, Flags]] = [
        ("ll", {}),
        ("adv", {**_BALANCED, **half}),
        ("mmd", {**_BALANCED, **half, **_perceptual(context)}),
        ("pae", half),
    ]
    jobs = []
    for program, own in programs:
        for rate in (0.1, 0.01, 0.001):
            for batch_size in (64, 128, 256):
                rates = {"learning_rate": rate}
                if program != "ll":
                    rates["sampler_learning_rate"] = rate / 10
                jobs.append(
                    _job(
                        context,
                        f"{program}_rate{rate}_batch{batch_size}",
                        program,
                        f"{program.upper()}, step size {rate}, batches of {batch_size}",
                        _ours(context) if program != "pae" else {},
                        own,
                        steps,
                        rates,
                        {"batch_size": batch_size},
                    )
                )
    drawn = [job for job in jobs if job.program != "pae"]
    before = [*_judge(context), *_critics(context)]
    return [*before, *jobs, *_measured(context, drawn)]


def data_efficiency(context: Context) -> list[Job]:
    """A hundredth, a tenth and all of the training images."""
    steps = {"num_steps": context.scale.ladder_steps}
    half = {"pretrain_steps": context.scale.ladder_steps // 2}
    jobs: list[Job] = []
    before = _judge(context)
    for fraction in (0.01, 0.1, 1.0):
        part = {"train_fraction": fraction}
        critics = _critics(context, f"critics_{fraction}", **part)
        before += critics
        see = _perceptual(context)
        if critics:  # which have seen no more images than the circuit
            see = {"mmd_kernel": "classifier", "mmd_classifier": Of(critics[0].name)}
        hybrid = {**_BALANCED, **half}
        network = {"num_steps": context.scale.network_steps}
        title = f"{fraction:.0%} of the images"
        jobs += [
            _job(
                context, f"ll_{fraction}", "ll", f"LL, {title}",
                _ours(context), steps, part,
            ),
            _job(
                context, f"mmd_{fraction}", "mmd", f"LL and MMD, {title}",
                _ours(context), steps, hybrid, see, part,
            ),
            _job(
                context, f"adv_{fraction}", "adv", f"LL and ADV, {title}",
                _ours(context), steps, hybrid, part,
            ),
            _job(context, f"gan_{fraction}", "gan", f"GAN, {title}", network, part),
        ]  # fmt: skip
    return [*before, *jobs, *_measured(context, jobs)]


def convergence(context: Context) -> list[Job]:
    """Metrics over training time."""
    steps = context.scale.ladder_steps
    often = {"num_steps": steps, "eval_every": max(steps // 20, 1)}
    hybrid = {**_BALANCED, "pretrain_steps": steps // 2}
    ours, see = _ours(context), _perceptual(context)
    jobs = [
        _job(context, "ll", "ll", "LL", ours, often),
        _job(context, "adv", "adv", "LL, then LL and ADV", ours, often, hybrid),
        _job(context, "mmd", "mmd", "LL, then LL and MMD", ours, often, hybrid, see),
        _job(context, "gan", "gan", "GAN (network)", often),
    ]
    before = [*_judge(context), *_critics(context)]
    return [*before, *jobs, *_measured(context, jobs)]


def smoke(context: Context) -> list[Job]:
    """`best` with little of everything: shows that all of it works."""
    return best(context)


PRESETS: dict[str, Callable[[Context], list[Job]]] = {
    "smoke": smoke,
    "paper": paper,
    "corrected": corrected,
    "best": best,
    "temperature": temperature,
    "grid": grid,
    "data_efficiency": data_efficiency,
    "convergence": convergence,
}
