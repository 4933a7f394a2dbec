"""What Hydra and OmegaConf say of a configuration that cannot be, in one line: what is wrong, what would be right."""

from __future__ import annotations

import difflib
import re

from .command import GROUPS, Keys, in_quotes, unknown
from .conf import choices, conf_dir
from .keys import is_key
from .values import said


def one_line(error: Exception) -> str:
    """A composition error as one line."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    missing = re.search(r"Could not find '((?:hydra/)?\w+)/([^']*)'", text)
    if missing:
        return unknown_choice(missing[1], missing[2], re.findall(r"^\t(\w+)$", text, re.MULTILINE))
    lines = [line.strip() for line in f"{text}\n{cause if cause is not error else ''}".splitlines() if line.strip()]
    several = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", lines[0])
    if several:
        return _several(several[1])
    there = re.match(r"Could not append to config. An item is already at '(.*)'|Multiple values for (\S+)\.", lines[0])
    if there:
        key = there[1] or there[2]
        return f"'{key}' is there already: {key}=.. without the +"
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    where = re.match(r"In '[^']+': ", text)
    gone = re.search(r"Could not delete from config. '([^']+)' does not exist", text)
    if (gone and not is_key(gone[1], Keys)) or re.search(r"Key '[^']+' (?:is )?not in ", "\n".join(lines)):
        return (where[0] if where else "") + unknown(gone[1] if gone else key)
    group = re.match(r"Override \S+=\S* looks like a config group override, but config group '(.*)' does not", lines[0])
    if group:
        return unknown(group[1])
    word = re.match(r"Error merging override (.*)", lines[0])
    told = said(word[1].partition("=")[0].lstrip("+~") if word and not key else key, "\n".join(lines), word and word[1])
    return (where[0] if where and told != text else "") + told


def unknown_choice(group: str, name: str, known: list[str]) -> str:
    """What is wrong with ``group=name``; ``known``: choices that Hydra lists, those of a user's folder among them."""
    names = list(dict.fromkeys([*sorted(set(known) - {"schema"}), *choices(group)]))
    elsewhere = [other for other in (*GROUPS, "experiment") if other != group and name in choices(other)]
    close = difflib.get_close_matches(name, names, 1)
    meant = [f"{other}={name}" for other in elsewhere] or close
    return f"unknown {group} '{name}'{f' (did you mean {meant[0]}?)' if meant else ''}, known: {', '.join(names)}"


def _several(word: str) -> str:
    """Of a word with several values in a command that makes one run."""
    key, _, value = word.partition("=")
    if key == "experiment":
        return f"{word} has several values: a command for each"
    chosen = (conf_dir() / key).is_dir() or re.fullmatch(r"[-+.,\de]+|\w+\(.*\)", value)  # of a group, or a number
    as_one = "" if chosen else f" As one value: {in_quotes(key, value)}"
    return f"{word} has several values: did you mean a sweep, with -m?{as_one}"
