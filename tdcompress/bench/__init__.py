"""Timings: what the layers, a training step, inference and an epoch cost, against what they replace, in one run."""
