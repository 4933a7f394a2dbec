"""How parameters are learned: the optimizer, its schedule, and what each core gets of rate and decay."""
