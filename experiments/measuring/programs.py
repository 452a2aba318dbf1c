"""Every program that trains."""

from collections.abc import Mapping

from experiments import ade, adv, classifier, gan, ll, mmd, mmd_gan, pae, vae
from experiments.engine.program import Program

PROGRAMS: Mapping[str, Program] = {
    "ll": ll.PROGRAM,
    "mmd": mmd.PROGRAM,
    "adv": adv.PROGRAM,
    "pae": pae.PROGRAM,
    "gan": gan.PROGRAM,
    "mmd_gan": mmd_gan.PROGRAM,
    "vae": vae.PROGRAM,
    "classifier": classifier.PROGRAM,
    "ade": ade.PROGRAM,
}
"""By the name that `run_folder.Config` has."""
