"""Two runs side by side: the keys in which they differ, and what became of them."""

from __future__ import annotations

import json
from typing import Any

from ..identity import differences, identity
from ..record import Summary

_OUTCOMES = (
    *("status", "epochs_done", "device", "processes", "versions", "parameters", "compression_ratio", "macs"),
    *("best_epoch", "best_validation_accuracy", "test_accuracy", "best_test_accuracy", "train_seconds_per_epoch"),
)


def keys_that_differ(first: Summary, second: Summary) -> dict[str, tuple[str, str]]:
    """Of what decides a run's results, as words of a command line; ``null`` is a key that a run has not."""
    return _told(identity(first.config), identity(second.config))


def outcomes_that_differ(first: Summary, second: Summary) -> dict[str, tuple[str, str]]:
    """Of what became of them: status, sizes, accuracies, times, and where they were computed."""
    return _told(*({name: getattr(summary, name) for name in _OUTCOMES} for summary in (first, second)))


def _told(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {key: (_word(key, a), _word(key, b)) for key, (a, b) in differences(first, second).items()}


def _word(key: str, value: Any) -> str:
    if isinstance(value, float) and key.endswith("accuracy"):
        return f"{value:.2%}"
    if isinstance(value, float) and key in _OUTCOMES:
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
