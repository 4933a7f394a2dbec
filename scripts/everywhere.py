"""Compress networks of many kinds and check what becomes of them: a row of a table each.

    python scripts/everywhere.py                                 # all networks, formats and ratios
    python scripts/everywhere.py --only vit_b_16,timm/* --formats tt,cp --ranks 4x

--only PATTERNS of networks, by default all of ``zoo.networks``
--formats NAMES, by default all
--ranks BUDGETS, by default 4x,10x
--limit SECONDS that a row may take, by default 900
--again: make rows again that are wrong or failed
--init NAME of how the cores begin, by default each format's way; variance, which draws them, is much faster
--export: see whether the networks can be exported, which takes longer than all the rest
--out FILE, by default results/everywhere.csv; rows that are there are kept

The networks have random weights. ``result``: right; refused, and the line that says why nothing was done; wrong, and
which check says so; or failed, and the error. Other columns: what was asked and reached; ``seconds`` that compress
took; ``error``, the largest difference of the outputs from those of a newly built dense network that holds the cores'
weights, relative to their norm (1e-4 passes); ``gradients``, the share of the parameters that one backward pass
reaches (all that it reaches in the dense one); ``loaded``, whether a saved file gives the same outputs in a newly built
network; with --export ``exported``, whether torch.export writes the folded network as a program that gives the same
outputs (1e-3 passes), where it can write the dense one.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import resource
import signal
import tempfile
import time
import warnings
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn
from zoo import Made, networks

import tdcompress
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS

_LARGEST, _EXPORTED = 1e-4, 1e-3
_MADE = networks()


def tensors(outputs: Any) -> list[Tensor]:
    """The floating-point tensors among what a network gives."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    values = outputs.values() if hasattr(outputs, "values") else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


def distance(found: Any, expected: Any) -> float:
    """The largest relative difference of two networks' outputs; none of what is zero in both."""
    pairs = list(zip(tensors(found), tensors(expected), strict=True))
    off = [float((a - b).norm() / b.norm()) if b.norm() > 0 else float(a.norm()) for a, b in pairs]
    return math.nan if any(map(math.isnan, off)) else max(off)  # of which max would take no note


@lru_cache(maxsize=1)
def built(name: str) -> Made:
    """The dense network, always with the same weights, for inference, and its inputs."""
    torch.manual_seed(0)
    model, inputs = _MADE[name]()
    return model.eval(), inputs


def made(name: str) -> Made:
    """A copy of the same."""
    model, inputs = built(name)
    return copy.deepcopy(model), inputs


def twin(model: nn.Module, name: str) -> nn.Module:
    """A newly built dense network that holds the weights that ``model`` has, or puts together."""
    dense = made(name)[0]
    state = dense.state_dict()
    for key in state:
        owner, _, own = key.rpartition(".")
        state[key] = getattr(model.get_submodule(owner), own)
        if state[key] is None:  # attention whose packed projection became three
            state[key] = torch.cat([getattr(model.get_submodule(owner), f"{part}_proj_weight") for part in "qkv"])
    with torch.no_grad():
        dense.load_state_dict(state)
    return dense


def differentiated(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, bool]:
    """Which parameters a backward pass from all outputs reaches."""
    torch.stack([tensor.square().mean() for tensor in tensors(model(*inputs))]).sum().backward()
    return {name: parameter.grad is not None for name, parameter in model.named_parameters()}


@cache
def dense_gradients(name: str) -> dict[str, bool]:
    """``differentiated`` of the dense network."""
    return differentiated(*made(name))


def cut_off(model: nn.Module, found: dict[str, bool], name: str) -> list[str]:
    """The parameters without a gradient whose like in the dense network has one."""
    dense = dense_gradients(name)
    cores = {f"{name}.cores.": f"{name}.weight" for name in factorised(model)}
    names = {name: next((dense for key, dense in cores.items() if name.startswith(key)), name) for name in found}
    return [name for name, reached in found.items() if not reached and dense.get(names[name], True)]


@cache
def exports(name: str) -> bool:
    """Whether torch.export can write the dense network."""
    with suppress(Exception):
        model, inputs = made(name)
        torch.export.export(model, inputs)
        return True
    return False


def row(name: str, format: str, rank: str, init: str | None, export: bool) -> dict[str, Any]:
    """Compress a network and look at what became of it."""
    model, inputs = made(name)
    began = time.perf_counter()
    try:
        tdcompress.compress(model, format, rank, example_inputs=inputs, init=init)
    except ConfigError as error:
        return {"result": f"refused: {error}", "seconds": time.perf_counter() - began}
    seconds, wrong = time.perf_counter() - began, []
    counts = tdcompress.report(model).counts
    trained = differentiated(model, inputs)  # first: some keep what they compute without gradients
    with torch.no_grad():
        outputs = model(*inputs)
    dense = twin(model, name)
    with torch.no_grad():
        off = distance(outputs, dense(*inputs))
    if not off <= _LARGEST:
        wrong.append(f"outputs differ by {off:.1e}")
    if lost := cut_off(model, trained, name):
        wrong.append(f"no gradient reaches {', '.join(lost[:3])}")
    del dense
    model.zero_grad()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        tdcompress.save(model, Path(folder, "model.safetensors"))
        again = tdcompress.load(Path(folder, "model.safetensors"), made(name)[0])
        loaded = distance(again(*inputs), outputs) == 0
    if not loaded:
        wrong.append("outputs are others after save and load")
    del again
    exported: bool | None = None
    if export and exports(name):
        try:
            program = torch.export.export(tdcompress.fold(model, example_inputs=inputs), inputs)
            with torch.no_grad():
                exported = distance(program.module()(*inputs), outputs) <= _EXPORTED
        except Exception as error:  # of torch's, of any kind
            exported = False
            wrong.append(f"not exported: {line(error)}")
        else:
            wrong += [] if exported else ["outputs are others once exported"]
    return {
        "result": f"wrong: {'; '.join(wrong)}" if wrong else "right",
        "seconds": seconds,
        "dense_parameters": counts["dense_parameters"],
        "compression_ratio": counts["compression_ratio"],
        "macs_share": counts["macs"] / max(counts["dense_macs"], 1),
        "error": off,
        "gradients": sum(trained.values()) / len(trained),
        "loaded": loaded,
        "exported": exported,
    }


def line(error: Exception) -> str:
    """An error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def checked(name: str, format: str, rank: str, options: argparse.Namespace) -> dict[str, Any]:
    """``row``, whatever happens: a fault is to be seen in the table, and the others go on."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {options.limit} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(options.limit)
    try:
        return row(name, format, rank, options.init, options.export)
    except Exception as error:
        return {"result": f"failed: {line(error)}"}
    finally:
        signal.alarm(0)


def main() -> None:
    """Make the rows that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="patterns of networks")
    parser.add_argument("--formats", default=",".join(name for name, one in sorted(FORMATS.items()) if one.factorised))
    parser.add_argument("--ranks", default="4x,10x")
    parser.add_argument("--limit", type=int, default=900, help="seconds that a row may take")
    parser.add_argument("--again", action="store_true", help="make rows again that are wrong or failed")
    parser.add_argument("--init", default=None, help="how cores begin, by default each format's way")
    parser.add_argument("--export", action="store_true", help="see whether networks can be exported")
    parser.add_argument("--out", type=Path, default=Path("results/everywhere.csv"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (free, resource.RLIM_INFINITY))  # a row that needs more fails, not all
    patterns = options.only.split(",")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = pandas.read_csv(options.out).to_dict("records") if options.out.exists() else []
    if options.again:
        rows = [one for one in rows if not str(one["result"]).startswith(("wrong", "failed"))]
    done = {(one["network"], one["format"], one["rank"]) for one in rows}
    for name in _MADE:
        for rank in options.ranks.split(","):
            for format in options.formats.split(","):
                asked = any(fnmatch(name, pattern) for pattern in patterns)
                if asked and (name, format, rank) not in done:
                    values = checked(name, format, rank, options)
                    rows.append({"network": name, "format": format, "rank": rank, "init": options.init, **values})
                    pandas.DataFrame(rows).to_csv(options.out, index=False)
                    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
