"""What the command says, line by line."""

from __future__ import annotations

import sys


def say(line: object) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def complain(message: object) -> None:
    """Tell what is wrong in one line of standard error, whatever lines ``message`` has."""
    print("tdc: " + " ".join(str(message).split()), file=sys.stderr)
