"""What the user gave cannot be used."""

from __future__ import annotations


class ConfigError(ValueError):
    """A value the user gave cannot be used; the message says what is wrong and what would be right."""
