"""The training loop of all programs, and what surrounds it; it knows no objective."""
