"""Parameters that are read off data, without a step of training."""
