"""Circuits of other libraries, read from their files."""

from dspc_jax.ports.cirkit import region_graph_from_json
from dspc_jax.ports.einet import from_einet

__all__ = ["from_einet", "region_graph_from_json"]
