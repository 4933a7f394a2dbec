"""Draw every figure from the runs under results/: the same as ``tdc plot``."""

import sys

from tdcompress.cli import main

main(["plot", *sys.argv[1:]])
