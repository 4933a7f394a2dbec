"""What single layers cost before and after, and how their ranks fell while training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import matplotlib
import pandas
from matplotlib.figure import Figure

from ...tensor.formats import BASELINE
from .axes import Entry, labels_beside, set_scale
from .look import INK, Look
from .quantities import quantity

Layers = Sequence[Mapping[str, Any]]  # as a summary has them
History = Sequence[Mapping[str, Any]]  # a summary's ``ranks``


def cost_by_layer(methods: Mapping[str, tuple[str, Layers]], look: Look) -> Figure:
    """Parameters and MACs of each layer that holds cores somewhere: dense, and as each label holds it.

    ``methods``: for each label its method and the layers of its network.
    """
    held = [layer["name"] for _, layers in methods.values() for layer in layers if layer["ranks"]]
    names = [layer["name"] for layer in next(iter(methods.values()))[1] if layer["name"] in held]
    labels = pandas.DataFrame([{"label": label, "method": method} for label, (method, _) in methods.items()])
    figure, axes = look.figure(1.1 + 0.16 * len(names), 2, sharey=True)
    entries: list[Entry] = []
    for axis, column in zip(axes[0], ("parameters", "macs"), strict=True):
        dense = {layer["name"]: layer[f"dense_{column}"] for _, layers in methods.values() for layer in layers}
        before = {"color": INK, "marker": "|", "ms": 8, "mew": 1.5, "ls": ""}
        axis.plot([dense[name] for name in names], range(len(names)), **before)
        entries = [(BASELINE, before, math.inf)]
        for label, line, _ in look.lines(labels):
            layers, style = methods[label][1], {**line, "ls": "", "alpha": 0.9}
            held_here = {layer["name"]: layer[column] for layer in layers if layer["ranks"]}
            points = [(held_here[name], place) for place, name in enumerate(names) if name in held_here]
            axis.plot(*zip(*points, strict=True), **style)
            entries.append((label, style, math.inf))
        set_scale(axis, quantity(column))
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    labels_beside(figure, axes[0, 1], entries[::-1], look.height is not None)
    return figure


def ranks_over_epochs(histories: Mapping[str, tuple[History, int]], look: Look) -> Figure:
    """The mean of the ranks of each layer in each epoch, a panel for each label, a line for each layer.

    ``histories``: for each label the ranks from those epochs on in which they changed, and its number of epochs.
    """
    columns = min(len(histories), 2 if look.width < 5 else 3)
    rows = -(-len(histories) // columns)
    figure, table = look.figure(0.5 + 1.6 * rows, columns, rows, sharex=True, sharey=True)
    for axis in table.flat[len(histories) :]:
        axis.set_axis_off()
    names = list(dict.fromkeys(name for history, _ in histories.values() for one in history for name in one["layers"]))
    shades = matplotlib.colormaps["viridis"].resampled(len(names) + 1)  # the brightest is too faint on paper
    entries: dict[str, Entry] = {}
    for axis, (label, (history, epochs)) in zip(table.flat, histories.items(), strict=False):
        for place, name in enumerate(names):
            known = [one for one in history if name in one["layers"]]
            steps = [(one["epoch"] - 1, fmean(one["layers"][name].values())) for one in known]
            if steps:
                style = {"color": shades(place), "marker": ""}
                at, ranks = zip(*steps, (epochs, steps[-1][1]), strict=True)
                axis.step(at, ranks, where="post", lw=1, **style)
                entries[name] = (name, style, math.inf)
        axis.set_title(label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(bottom=0)
    for axis in table[-1]:
        axis.set_xlabel("epoch")
    for axis in table[:, 0]:
        axis.set_ylabel("mean rank")
    labels_beside(figure, table[0, -1], list(entries.values())[::-1], look.height is not None)
    return figure
