"""Programs that train circuits: ``python -m experiments.NAME --dataset=...``.

Every program is the same loop (`training`) around its own `System` of pure functions.
"""
