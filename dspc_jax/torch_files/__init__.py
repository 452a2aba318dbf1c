"""Tensors out of files that ``torch.save`` wrote, without torch or unpickling."""

from dspc_jax.torch_files.file_formats import read_tensors

__all__ = ["read_tensors"]
