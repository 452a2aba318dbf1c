"""Numerics, batched products, batching, storage: in forms that XLA compiles well."""
