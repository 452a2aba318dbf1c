"""The process of a stage: ``python -m benchmarks.accelerator.worker JOB``.

Every line of standard output is one JSON object: ``plan`` (names to come), ``begin``
(the measurement that is being made), or its result, with ``name`` and ``seconds``, and
``error`` or ``skipped`` where there is none. Prints of others go to standard error.
"""

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any, TextIO

from benchmarks.accelerator.job import Job, Measurement, Skipped
from benchmarks.accelerator.stages import STAGES


def run(job: Job, output: TextIO) -> None:
    """Makes the measurements of a stage that are not done."""

    def say(**fields: Any) -> None:
        output.write(json.dumps(fields) + "\n")
        output.flush()

    name = f"benchmarks.accelerator.{STAGES[job.stage].module}"
    module = importlib.import_module(name)
    measurements: list[Measurement] = [
        m for m in module.measurements(job) if m.name not in job.done
    ]
    say(plan=[m.name for m in measurements])
    for measurement in measurements:
        say(begin=measurement.name)
        start = time.perf_counter()
        try:
            fields = measurement.measure()
        except Skipped as reason:
            fields = {"skipped": str(reason)}
        except Exception as error:
            # Out of device memory as well: the next one may fit.
            traceback.print_exc()
            first = str(error).strip().split("\n")[0]
            fields = {"error": f"{type(error).__name__}: {first}"[:300]}
        seconds = time.perf_counter() - start
        say(name=measurement.name, **fields, seconds=round(seconds, 2))


def main() -> None:
    """Runs the job of the command line."""
    # Results go to a copy of standard output: whatever else is printed is a log.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run(Job.from_json(sys.argv[1]), output)


if __name__ == "__main__":
    main()
