"""Region graphs as plain data (NumPy only): families, latents, folding."""
