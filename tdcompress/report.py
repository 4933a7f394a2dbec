"""What a model's layers hold and cost: counts as plain data, and the table that a person reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from .config import parse_budget
from .inputs import Inputs, input_shapes
from .layers import Factorised, FactorisedConv2d, dense_macs, weight_shape
from .plans import path_macs


def layer_report(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """Counts of a whole network and of each convolution and linear layer, for one input of ``input_shape``.

    ``parameters`` and ``dense_parameters`` count every parameter (biases and norms too), ``macs`` and
    ``dense_macs`` are multiply-accumulates per image of the convolution and linear layers, of every call of them.
    """
    layers = [
        _layer(name, model.get_submodule(name), inputs) for name, inputs in input_shapes(model, input_shape).items()
    ]
    parameters = sum(p.numel() for p in model.parameters())
    dense = parameters + sum(layer["dense_parameters"] - layer["parameters"] for layer in layers)
    return {
        "parameters": parameters,
        "dense_parameters": dense,
        "compression_ratio": dense / parameters,
        "macs": sum(layer["macs"] for layer in layers),
        "dense_macs": sum(layer["dense_macs"] for layer in layers),
        "layers": layers,
    }


def _layer(name: str, layer: nn.Module, inputs: Inputs) -> dict[str, Any]:
    dense_shape = weight_shape(layer)
    dense = dense_macs(layer, inputs)
    entry: dict[str, Any] = {
        "name": name,
        "kind": "convolution" if len(dense_shape) > 2 else "linear",
        "shape": list(dense_shape),
        "format": "dense",
        "cores": {"weight": list(dense_shape)},
        "ranks": {},
        "parameters": math.prod(dense_shape),
        "dense_parameters": math.prod(dense_shape),
        "macs": dense,
        "dense_macs": dense,
        "plan": "dense",
    }
    if isinstance(layer, Factorised):
        graph = layer.graph
        reconstructs = isinstance(layer, FactorisedConv2d) and layer.groups > 1
        entry |= {
            "format": layer.format,
            "cores": {core.name: list(graph.shape(core)) for core in graph.cores},
            "ranks": graph.ranks,
            "parameters": graph.parameters,
            "macs": dense if reconstructs else path_macs(graph, layer.plan.path, layer, inputs),
            "plan": "reconstruct" if reconstructs else layer.plan.text,
        }
    return entry


def print_report(report: dict[str, Any], rank: int | str | None = None) -> None:
    """Print the per-layer table and the totals; if ``rank`` is a budget, also what it asks for and what is reached.

    With relative errors, ``error`` of layers and of the whole, it has these in place of the plans.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    errors = any("error" in layer for layer in report["layers"])
    for title in ("layer", "shape", "format", "cores"):
        table.add_column(title, overflow="fold")
    for title in ("ranks", "parameters", "MACs", "dense/params", "dense/MACs"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("error" if errors else "plan", overflow="fold")
    for layer in report["layers"]:
        table.add_row(
            layer["name"],
            "x".join(map(str, layer["shape"])),
            layer["format"],
            " ".join("x".join(map(str, size)) for size in layer["cores"].values()),
            " ".join(map(str, layer["ranks"].values())) or "-",
            f"{layer['parameters']:,}",
            f"{layer['macs']:,}",
            f"{layer['dense_parameters'] / layer['parameters']:.1f}",
            f"{layer['dense_macs'] / layer['macs']:.1f}",
            layer["plan"] if not errors else f"{layer['error']:.4f}" if "error" in layer else "-",
        )
    console = Console()
    console.width = max(console.width, 150)
    console.print(table)
    console.print(
        f"\n{report['parameters']:,} parameters, dense {report['dense_parameters']:,}: "
        f"{report['compression_ratio']:.2f}x smaller\n{report['macs']:,} MACs per image, dense "
        f"{report['dense_macs']:,}: {report['dense_macs'] / report['macs']:.2f}x fewer",
        highlight=False,
    )
    if errors:
        console.print(f"relative error of all factorised weights together: {report['error']:.4f}", highlight=False)
    budget = parse_budget(str(rank))
    if budget is not None and any(layer["ranks"] for layer in report["layers"]):
        total, dense = ("macs", "dense_macs") if budget.kind == "macs" else ("parameters", "dense_parameters")
        verb = "training starts with" if budget.adaptive else "reached"
        console.print(f"rank={budget}: {verb} {budget.said(report[total], report[dense])}", highlight=False)
