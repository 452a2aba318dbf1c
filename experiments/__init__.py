"""Programs that train circuits: ``python -m experiments.NAME --dataset=...``.

Every program is the same loop (`training`) around its own `System` of pure functions.
"""

import os

# Before JAX is loaded: XLA on CPU writes a page for each program that it takes out of
# the compilation cache.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
