"""The studies: what runs, declared."""

from collections.abc import Callable

from experiments.study.densities import ade
from experiments.study.parts import (
    auto_encoder_jobs,
    critic_jobs,
    evaluation_jobs,
    further_jobs,
    job_of,
    judge_jobs,
    network_jobs,
    start_jobs,
)
from experiments.study.plan import Job, Of
from experiments.study.settings import (
    BALANCED,
    PAPER_ADV,
    PAPER_MMD,
    PAPER_PAE,
    RAT,
    Context,
    Flags,
    annealed,
    corrections,
    discriminating,
    half_and_half,
    hybrid,
    ours_flags,
    perceptual,
    union,
)


def best(context: Context) -> list[Job]:
    """Likelihood with losses on samples against likelihood alone, PAE, networks."""
    before = [*judge_jobs(context), *critic_jobs(context), *start_jobs(context)]
    steps = {"num_steps": context.scale.first_steps + context.scale.start_steps}
    rat = {**RAT, "leaf": "discretized_logistic", **steps, "learning_rate": 0.01}
    trained = [
        *further_jobs(context),
        job_of(context, "rat", "ll", "LL, the paper's structure", rat),
        *network_jobs(context),
    ]
    auto_encoders = auto_encoder_jobs(context)
    return [*before, *trained, *evaluation_jobs(context, trained), *auto_encoders]


def paper(context: Context) -> list[Job]:
    """The paper's objectives as published, faults included, and its networks."""
    steps = {"num_steps": context.scale.ladder_steps}
    ll = {**RAT, "learning_rate": 0.2}
    jobs = [
        job_of(context, "paper_ll", "ll", "LL", ll, steps),
        job_of(context, "paper_adv", "adv", "ADV", RAT, PAPER_ADV, steps),
        job_of(context, "paper_mmd", "mmd", "MMD", RAT, PAPER_MMD, steps),
        job_of(context, "paper_pae", "pae", "PAE", RAT, PAPER_PAE, steps),
        job_of(context, "paper_gan", "gan", "GAN (network)", steps),
        job_of(context, "paper_mmd_gan", "mmd_gan", "MMD-GAN (network)", steps),
        job_of(context, "paper_vae", "vae", "VAE (network)", steps),
    ]
    return [*judge_jobs(context), *jobs, *evaluation_jobs(context, jobs)]


def corrected(context: Context) -> list[Job]:
    """The paper's ADV and MMD with one thing changed; ours with one left as it was."""
    steps = {"num_steps": context.scale.ladder_steps}
    rules = corrections(context)
    used = [c for c in rules if c.is_used]
    rungs: list[tuple[str, Flags, Flags]] = [("the paper's", {}, {})]
    rungs += [(f"with {c.title}", c.adv, c.mmd) for c in rules]
    rungs.append(("ours", *union(used)))
    for left_out in used:
        # Other leaves than binomial have no such deviation, and the likelihood brings a
        # step size of its own.
        if left_out.title not in ("deviation", "step size"):
            others = (c for c in used if c is not left_out)
            rungs.append((f"ours without {left_out.title}", *union(others)))
    jobs = [
        job_of(context, "paper_ll", "ll", "LL", RAT, {"learning_rate": 0.2}, steps),
        job_of(context, "rat_ll", "ll", "LL, step size 0.03", RAT, steps),
    ]
    for program, paper_flags in (("adv", PAPER_ADV), ("mmd", PAPER_MMD)):
        for title, adv, mmd in rungs:
            change = adv if program == "adv" else mmd
            name = f"{program}_{title.replace(' ', '_').replace(chr(39), '')}"
            label = f"{program.upper()}: {title}"
            base = {**RAT, **steps, **paper_flags}
            jobs.append(job_of(context, name, program, label, base, change))
    ours = {**RAT, **steps, **PAPER_MMD, **union(used)[1], "sample_weight": 0.0}
    jobs.append(job_of(context, "ours_ll", "mmd", "ours, likelihood alone", ours))
    before = [*judge_jobs(context), *critic_jobs(context)]
    return [*before, *jobs, *evaluation_jobs(context, jobs)]


def temperature(context: Context) -> list[Job]:
    """Table 4 of the paper, for soft samples and for hard ones."""
    ours = ours_flags(context)
    steps = {"num_steps": context.scale.ladder_steps}
    jobs = [job_of(context, "ll", "ll", "LL", ours, steps)]
    objectives: list[tuple[str, Flags]] = [
        ("adv", discriminating(context)),
        ("mmd", perceptual(context)),
    ]
    for program, own in objectives:
        for relaxation in ("gumbel_softmax", "straight_through"):
            for title, flags in _temperatures(context).items():
                jobs.append(
                    job_of(
                        context,
                        f"{program}_{relaxation}_{title}",
                        program,
                        f"{program.upper()}, {relaxation}, temperature {title}",
                        ours,
                        hybrid(context),
                        own,
                        {"relaxation": relaxation, **flags},
                    )
                )
    before = [*judge_jobs(context), *critic_jobs(context)]
    return [*before, *jobs, *evaluation_jobs(context, jobs)]


def _temperatures(context: Context) -> dict[str, Flags]:
    steps = context.scale.ladder_steps
    return {
        "0.05": {"temperature": 0.05},
        "0.5": {"temperature": 0.5},
        "1": {"temperature": 1.0},
        "annealed": annealed(steps - steps // 2),
        "learned": {"temperature": 0.5, "temperature_schedule": "learned"},
    }


def grid(context: Context) -> list[Job]:
    """Tables 7 to 10 of the paper: step size by batch size."""
    ours = ours_flags(context)
    objectives: list[tuple[str, Flags]] = [
        ("ll", {**ours, "pretrain_steps": None, "sampler_learning_rate": None}),
        ("adv", {**ours, **BALANCED, **discriminating(context)}),
        ("mmd", {**ours, **BALANCED, **perceptual(context)}),
        ("pae", {}),
    ]
    jobs = [
        job_of(
            context,
            f"{program}_rate{rate}_batch{batch_size}",
            program,
            f"{program.upper()}, step size {rate}, batches of {batch_size}",
            half_and_half(context, rate),
            own,
            {"batch_size": batch_size},
        )
        for program, own in objectives
        for rate in (0.1, 0.01, 0.001)
        for batch_size in (64, 128, 256)
    ]
    drawn = [job for job in jobs if job.program != "pae"]
    before = [*judge_jobs(context), *critic_jobs(context)]
    return [*before, *jobs, *evaluation_jobs(context, drawn)]


def data_efficiency(context: Context) -> list[Job]:
    """A hundredth, a tenth and all of the training images."""
    steps = {"num_steps": context.scale.ladder_steps}
    jobs: list[Job] = []
    before = judge_jobs(context)
    for fraction in (0.01, 0.1, 1.0):
        part = {"train_fraction": fraction}
        critics = critic_jobs(context, f"critics_{fraction}", **part)
        before += critics
        within = context
        if critics:  # which have seen no more images than the circuit
            within = context._replace(critics=Of(critics[0].name))
        see, tell = perceptual(within), discriminating(within)
        title = f"{fraction:.0%} of the images"
        jobs += [
            job_of(
                context, f"ll_{fraction}", "ll", f"LL, {title}",
                ours_flags(context), steps, part,
            ),
            job_of(
                context, f"mmd_{fraction}", "mmd", f"LL and MMD, {title}",
                ours_flags(context), hybrid(context), see, part,
            ),
            job_of(
                context, f"adv_{fraction}", "adv", f"LL and ADV, {title}",
                ours_flags(context), hybrid(context), tell, part,
            ),
            job_of(context, f"gan_{fraction}", "gan", f"GAN, {title}", steps, part),
        ]  # fmt: skip
    return [*before, *jobs, *evaluation_jobs(context, jobs)]


def convergence(context: Context) -> list[Job]:
    """Metrics over training time."""
    steps = context.scale.ladder_steps
    often = {"num_steps": steps, "eval_every": max(steps // 20, 1)}
    ours, both = ours_flags(context), hybrid(context)
    see, tell = perceptual(context), discriminating(context)
    jobs = [
        job_of(context, "ll", "ll", "LL", ours, often),
        job_of(context, "adv", "adv", "LL, then LL and ADV", ours, often, both, tell),
        job_of(context, "mmd", "mmd", "LL, then LL and MMD", ours, often, both, see),
        job_of(context, "gan", "gan", "GAN (network)", often),
    ]
    before = [*judge_jobs(context), *critic_jobs(context)]
    return [*before, *jobs, *evaluation_jobs(context, jobs)]


PRESETS: dict[str, Callable[[Context], list[Job]]] = {
    "smoke": best,  # with little of everything
    "paper": paper,
    "corrected": corrected,
    "best": best,
    "temperature": temperature,
    "grid": grid,
    "data_efficiency": data_efficiency,
    "convergence": convergence,
    "ade": ade,
}
