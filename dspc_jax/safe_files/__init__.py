"""Readers of files from strangers: nothing of them is ever executed."""

from dspc_jax.safe_files.pickle_reader import UnsafePickle
from dspc_jax.safe_files.python_pickles import read_dict
from dspc_jax.safe_files.torch_files import read_tensors

__all__ = ["UnsafePickle", "read_dict", "read_tensors"]
