"""Training inside a trial: the session that owns the budget, the loop, the meter, checkpoints."""
