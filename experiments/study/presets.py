"""The studies: declared lists of jobs."""

from collections.abc import Callable

from experiments.study.densities import ade
from experiments.study.parts import (
    auto_encoder_jobs,
    critic_jobs,
    further_jobs,
    job_of,
    judge_jobs,
    network_jobs,
    start_jobs,
    with_evaluations,
)
from experiments.study.plan import Job, RunOf
from experiments.study.settings import (
    BALANCED,
    PAPER_ADV,
    PAPER_MMD,
    PAPER_PAE,
    RAT,
    Context,
    Flags,
    adv_flags,
    annealed,
    circuit_flags,
    corrections,
    half_and_half,
    hybrid,
    mmd_flags,
    union,
)


def best(context: Context) -> list[Job]:
    """Likelihood with losses on samples against likelihood alone, PAE, networks."""
    steps = {"num_steps": context.scale.first_steps + context.scale.start_steps}
    rat = {**RAT, "leaf": "discretized_logistic", **steps, "learning_rate": 0.01}
    samplers = [
        *further_jobs(context),
        job_of(context, "rat", "ll", "LL, the paper's structure", rat),
        *network_jobs(context),
    ]
    jobs = [*start_jobs(context), *samplers]
    plan = with_evaluations(context, jobs, evaluated=samplers)
    return [*plan, *auto_encoder_jobs(context)]


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
    return with_evaluations(context, jobs, classifiers=judge_jobs(context))


def corrected(context: Context) -> list[Job]:
    """The paper's ADV and MMD with one change; ours without one of its changes."""
    steps = {"num_steps": context.scale.ladder_steps}
    jobs = [
        job_of(context, "paper_ll", "ll", "LL", RAT, {"learning_rate": 0.2}, steps),
        job_of(context, "rat_ll", "ll", "LL, step size 0.03", RAT, steps),
    ]
    for program, paper_flags in (("adv", PAPER_ADV), ("mmd", PAPER_MMD)):
        for title, adv, mmd in _rungs(context):
            flags = adv if program == "adv" else mmd
            name = f"{program}_{title.replace(' ', '_').replace(chr(39), '')}"
            label = f"{program.upper()}: {title}"
            base = {**RAT, **steps, **paper_flags}
            jobs.append(job_of(context, name, program, label, base, flags))
    _, mmd = union(c for c in corrections(context) if c.is_used)
    ours = {**RAT, **steps, **PAPER_MMD, **mmd, "sample_weight": 0.0}
    jobs.append(job_of(context, "ours_ll", "mmd", "ours, likelihood alone", ours))
    return with_evaluations(context, jobs)


def _rungs(context: Context) -> list[tuple[str, Flags, Flags]]:
    """Title, and the flags that change in the paper's ADV and in its MMD."""
    changes = corrections(context)
    ours = [c for c in changes if c.is_used]
    # Other leaves than binomial have no such deviation, and the likelihood brings its
    # own step size.
    inseparable = ("deviation", "step size")
    return [
        ("the paper's", {}, {}),
        *((f"with {c.title}", c.adv, c.mmd) for c in changes),
        ("ours", *union(ours)),
        *(
            (f"ours without {c.title}", *union(d for d in ours if d is not c))
            for c in ours
            if c.title not in inseparable
        ),
    ]


def temperature(context: Context) -> list[Job]:
    """Table 4 of the paper, for soft samples and for hard ones."""
    ours = circuit_flags(context)
    steps = {"num_steps": context.scale.ladder_steps}
    jobs = [job_of(context, "ll", "ll", "LL", ours, steps)]
    objectives: list[tuple[str, Flags]] = [
        ("adv", adv_flags(context)),
        ("mmd", mmd_flags(context)),
    ]
    for program, loss in objectives:
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
                        loss,
                        {"relaxation": relaxation, **flags},
                    )
                )
    return with_evaluations(context, jobs)


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
    ours = circuit_flags(context)
    objectives: list[tuple[str, Flags]] = [
        ("ll", {**ours, "pretrain_steps": None, "sampler_learning_rate": None}),
        ("adv", {**ours, **BALANCED, **adv_flags(context)}),
        ("mmd", {**ours, **BALANCED, **mmd_flags(context)}),
        ("pae", {}),
    ]
    jobs = [
        job_of(
            context,
            f"{program}_rate{rate}_batch{batch_size}",
            program,
            f"{program.upper()}, step size {rate}, batches of {batch_size}",
            half_and_half(context, rate),
            loss,
            {"batch_size": batch_size},
        )
        for program, loss in objectives
        for rate in (0.1, 0.01, 0.001)
        for batch_size in (64, 128, 256)
    ]
    samplers = [job for job in jobs if job.program != "pae"]
    return with_evaluations(context, jobs, evaluated=samplers)


def data_efficiency(context: Context) -> list[Job]:
    """A hundredth, a tenth and all of the training images."""
    steps = {"num_steps": context.scale.ladder_steps}
    ours, joint = circuit_flags(context), hybrid(context)
    jobs: list[Job] = []
    classifiers = judge_jobs(context)
    for fraction in (0.01, 0.1, 1.0):
        images = {"train_fraction": fraction}
        critics = critic_jobs(context, f"critics_{fraction}", **images)
        classifiers += critics
        own_context = context
        if critics:  # which have seen no more images than the circuit
            own_context = context._replace(critics=RunOf(critics[0].name))
        adv, mmd = adv_flags(own_context), mmd_flags(own_context)
        rows: list[tuple[str, str, list[Flags]]] = [
            ("ll", "LL", [ours, steps]),
            ("mmd", "LL and MMD", [ours, joint, mmd]),
            ("adv", "LL and ADV", [ours, joint, adv]),
            ("gan", "GAN", [steps]),
        ]
        for program, title, flags in rows:
            label = f"{title}, {fraction:.0%} of the images"
            name = f"{program}_{fraction}"
            jobs.append(job_of(context, name, program, label, *flags, images))
    return with_evaluations(context, jobs, classifiers=classifiers)


def convergence(context: Context) -> list[Job]:
    """Metrics over training time."""
    steps = context.scale.ladder_steps
    often = {"num_steps": steps, "eval_every": max(steps // 20, 1)}
    ours, joint = circuit_flags(context), hybrid(context)
    mmd, adv = mmd_flags(context), adv_flags(context)
    jobs = [
        job_of(context, "ll", "ll", "LL", ours, often),
        job_of(context, "adv", "adv", "LL, then LL and ADV", ours, often, joint, adv),
        job_of(context, "mmd", "mmd", "LL, then LL and MMD", ours, often, joint, mmd),
        job_of(context, "gan", "gan", "GAN (network)", often),
    ]
    return with_evaluations(context, jobs)


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
