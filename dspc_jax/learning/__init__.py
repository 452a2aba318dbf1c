"""How parameters are learned: expectation-maximization, schedules, balances."""
