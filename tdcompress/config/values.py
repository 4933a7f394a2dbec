"""What OmegaConf says of a value that a key cannot have, in words of our own."""

from __future__ import annotations

import re

_TYPES = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}
_LIST = "{key}{value} is not a list, such as {key}=[first,second]"

# What OmegaConf says of a value, and what is said here: of its key, of the value with an equals sign before it where
# that is known, and of what else the pattern finds.
_VALUES: tuple[tuple[str, str], ...] = (
    (r"Value '(?P<is>.*)' of type '\w+' could not be converted to (?P<to>\w+)", "{key}={is} is not {to}"),
    (r"Value '(?P<is>.*)' is not a valid bool", "{key}={is} is not true or false"),
    (r"field '.*' is not Optional|Incompatible value 'None'", "{key}=null: it needs a value"),
    (r"Invalid value assigned: \w+ is not a (?:ListConfig|subclass of ListConfig)", _LIST),
    (r"Cannot merge \w+ with ListConfig", _LIST),
    (r"Cannot assign \w+ to (?:Dict|DictConfig)", "{key}{value} is not like {key}={{name: value}}"),
    (r"Cannot merge \w+ with DictConfig", "{key}{value} is not like {key}={{name: value}}"),
    (r"Invalid value '(?P<is>.*)', expected one of \[(?P<to>.*)\]", "unknown {key} '{is}', known: {to}"),
    (r"Interpolation key '(?P<is>.*)' not found", "{key}{value}: ${{{is}}} stands for no key"),
    (r"Unsupported interpolation type (?P<is>\S+)", "{key}{value}: there is no ${{{is}:..}}, only ${{oc.env:NAME}}"),
    (r"Environment variable '(?P<is>.*)' not found", "{key}{value}: the environment has no {is}"),
    (r"Recursive interpolation|InterpolationResolutionError: Recursive", "{key}{value} stands for itself"),
)


def said(key: str, text: str, word: str | None = None) -> str:
    """What OmegaConf's ``text`` says of the value of ``key``; ``word`` is what gave it, where that is known."""
    value = "=" + word.partition("=")[2] if word else ""
    for pattern, form in _VALUES:
        found = re.search(pattern, text)
        if found:
            named = {name: _TYPES.get(part, part) for name, part in found.groupdict().items()}
            return form.format(key=key, value=value, **named)
    lines = [line for line in text.splitlines() if not line.startswith("Error merging override ")]
    return f"{word or key}: {lines[0]}" if word or key else lines[0]
