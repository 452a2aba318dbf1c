"""The study of densities behind flows: likelihood, samples, and both."""

from collections.abc import Mapping
from typing import Any

from experiments.study.parts import job_of, network_jobs, with_evaluations
from experiments.study.plan import Job, RunOf
from experiments.study.settings import Context, Flags, adv_flags, mmd_flags

# Density and flow. The logit comes before every flow but the identity, so that the
# circuit in pixel space is that of the other programs.
_PAIRS = (
    ("circuit", "identity"),
    ("circuit", "colour"),
    ("circuit", "patch"),
    ("circuit", "multi_scale"),
    ("vae", "identity"),
    ("vae", "multi_scale"),
    ("gaussian", "multi_scale"),
)
# No loss on samples, so that none is compiled.
_LIKELIHOOD: Flags = {"sample_weight": 0.0, "pretrain_steps": 0}


def ade(context: Context) -> list[Job]:
    """Every density by likelihood, through samples, and by both, from one start."""
    units = min(context.scale.units, 32)
    circuit = {"num_sums": units, "num_leaves": units}
    steps = context.scale.ladder_steps
    jobs = []
    for density, flow in _PAIRS:
        logit = "none" if flow == "identity" else "logit"
        common: Flags = {
            **({} if density == "gaussian" else circuit),
            **{"density": density, "flow": flow, "preprocess": logit},
        }
        jobs += _start_and_variants(context, f"{density}_{flow}", common, steps)
    kernel = {"density": "kernel", "sampler_learning_rate": 0.03}
    jobs += [
        job_of(
            context, "kernel", "ade", "Gaussians at training images", kernel,
            _LIKELIHOOD, {"num_steps": steps},
        ),
        *network_jobs(context),
    ]  # fmt: skip
    return with_evaluations(context, jobs)


def _start_and_variants(
    context: Context, name: str, common: Mapping[str, Any], steps: int
) -> list[Job]:
    """A start by likelihood, and every way to continue from it."""
    title = name.replace("_", " ", 1)
    start = job_of(
        context, f"{name}_start", "ade", f"{title}: start", common,
        _LIKELIHOOD, {"num_steps": 2 * steps, "sampler_learning_rate": 0.005},
    )  # fmt: skip
    continued: Flags = {
        **common,
        "num_steps": steps,
        "pretrain_steps": 0,
        "start_from": RunOf(start.name),
    }
    log_ratio = {"adv_loss": "log_ratio"}
    # Their losses see the decoder's mean; ours see samples, which are measured.
    output = {"density_output": "sample"} if common["density"] == "vae" else {}
    adv = {**adv_flags(context), **output}
    mmd = {"sample_loss": "mmd", **mmd_flags(context), **output}
    variants: list[tuple[str, str, Flags]] = [
        ("ll", "LL", _LIKELIHOOD),
        ("adv", "ADV", {"ll_weight": 0.0, **log_ratio}),
        ("joint", "LL and ADV", log_ratio),
        ("joint_features", "LL and ADV on features", adv),
        ("joint_mmd", "LL and MMD on features", mmd),
    ]
    jobs = [
        job_of(
            context, f"{name}_{variant}", "ade", f"{title}: {label}", continued, flags
        )
        for variant, label, flags in variants
    ]
    return [start, *jobs]
