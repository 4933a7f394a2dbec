"""``python -m tdcompress`` is ``tdc``."""

from .cli import main

main()
