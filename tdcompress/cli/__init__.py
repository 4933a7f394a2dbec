"""The ``tdc`` command: one file for each verb, imported when it is called. This one imports nothing heavy."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from ..tensor.errors import ConfigError
from .shared.say import complain

VERBS = ("train", "compress", "show", "runs", "best", "plot", "report", "export", "bench")
_COMPOSED = ("train", "compress", "show")  # Hydra has a page of its own for these

HELP = """\
tdc trains networks with their weights in a tensor format, and compares the formats.

  tdc train method=tt dataset=cifar10            train one network
  tdc train -m method=cp,tt rank=4,8             train one after the other: a sweep
  tdc train -m launcher=local seed=0,1,2         several at once: launcher.jobs=2
  tdc compress checkpoint=RUN rank=10x           decompose a trained network; tdc train init_from=FILE goes on from it
  tdc show method=ht arch=vgg16 dataset=cifar10  what each layer holds and costs, without training
  tdc runs method=tt status=finished             the runs there are
  tdc best within=0.5 by=bytes                   the smallest network within half a point of dense; under=1e5: the best
  tdc plot results_dir=results                   draw the comparison figures
  tdc report results_dir=results                 tables and figures as one page, and the tables that a repository keeps
  tdc export run=DIR format=onnx                 a trained network as ONNX, as a torch program, or its dense weights
  tdc bench layers method=cp threads=2           time layers, and all else (tdc bench step, infer, export, loop)

`tdc train --help` lists every key; `tdc train --cfg job` prints the configuration.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit with its code: 0, 1 if runs of a sweep failed, 2 for bad input, 130 or 143 upon a signal."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if int(os.environ.get("RANK", "0")) > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (of the processes that torchrun starts, the first one speaks)
    if words[:1] == ["-sc"] or words[:1] == ["--shell-completion"]:
        words = ["train", *words]
    verb, *rest = words or ["help"]
    if verb in ("help", "-h", "--help") or (verb not in _COMPOSED and {"-h", "--help"} & set(rest)):
        print(HELP, end="")
        return
    if verb not in VERBS:
        complain(f"unknown verb '{verb}', known: {', '.join(VERBS)} (tdc --help shows one example each)")
        sys.exit(2)
    try:
        importlib.import_module(f".{verb}", __name__).run(rest)
    except ConfigError as error:
        complain(error)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(stop if str(stop) else "interrupted", file=sys.stderr)
        sys.exit(getattr(stop, "code", 130))
    except BrokenPipeError:  # whoever read the output has left, as in: tdc runs | head
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it at the end)
        sys.exit(141)
