"""Tests of `dspc_jax.objectives`."""
