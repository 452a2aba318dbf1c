"""What XLA must be told: numerics, batched products, batching, storage."""
