"""The tables of the README and docs/, which stand between markers and are made of results/published.

<!-- table: NAME -->
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas

from tdcompress.results.answers.networks import difference
from tdcompress.results.record import ENDED
from tdcompress.tensor.formats import BASELINE, FORMATS

from .cells import NONE, accuracy, first, markdown, speed
from .protocol import PROTOCOL
from .published import Published

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", PUBLISHED / "README.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_METHODS = (BASELINE, *(name for name in sorted(FORMATS) if name != BASELINE))


def _answer(found: Published) -> str:
    """README's: every format at a tenth, and what it costs."""
    rows = []
    for method in _METHODS:
        runs = found.of("vgg16", method).sort_values("seed")  # what is timed is of the first one
        if method != BASELINE and not len(runs):
            continue
        step, infer = found.times(("step_bf16",), method), found.times(("infer",), method, batch_size=64)
        plain = method == BASELINE
        files = found.times(("export",), None if plain else method, batch_size=64)
        rows.append(
            [
                method,
                accuracy(runs),
                first(runs, "parameters", "{:,.0f}"),
                first(runs, "macs", "{:,.0f}"),
                "1" if plain else speed(step),
                first(files, "dense_bytes" if plain else "bytes", "{:,.0f}"),
                "1" if plain else speed(files),
                "1" if plain else speed(infer),
            ]
        )
    head = ("method", "test accuracy, % (seeds)", "parameters", "MACs", "training step, speed-up")
    deployed = ("ONNX bytes", "ONNX, 64 images, speed-up", "torch, 64 images, speed-up")
    return markdown((*head, *deployed), rows)


def _accuracies(*columns: tuple[str, str, str | None]) -> Callable[[Published], str]:
    """A table of accuracies, a row a method; ``columns``: title, part and rank."""

    def table(found: Published) -> str:
        rows = [[method, *(accuracy(found.of(part, method, rank)) for _, part, rank in columns)] for method in _METHODS]
        rows = [row for row in rows if set(row[1:]) != {NONE}]
        return markdown(("method", *(title for title, _, _ in columns)), rows)

    return table


def _costs(*columns: tuple[str, str, str | None]) -> Callable[[Published], str]:
    """The MACs of the same networks, against the dense one's."""

    def table(found: Published) -> str:
        rows = []
        for method in _METHODS[1:]:
            cells = []
            for _, part, rank in columns:
                runs = found.of(part, method, rank)
                cells.append(f"{runs['macs'].mean() / runs['dense_macs'].iloc[0]:.2f}" if len(runs) else NONE)
            if set(cells) != {NONE}:
                rows.append([method, *cells])
        return markdown(("MACs / dense", *(title for title, _, _ in columns)), rows)

    return table


def _speeds(*columns: tuple[str, tuple[str, ...], dict[str, Any], str]) -> Callable[[Published], str]:
    """A table of times, a row a method; ``columns``: title, tables, which of their rows, and the column."""

    def table(found: Published) -> str:
        rows = []
        for method in _METHODS[1:]:
            cells = [speed(found.times(names, method, **where), column) for _, names, where, column in columns]
            if set(cells) != {NONE}:
                rows.append([method, *cells])
        return markdown(("method", *(title for title, *_ in columns)), rows)

    return table


def _seconds(*columns: tuple[str, str]) -> Callable[[Published], str]:
    """A table of seconds an epoch and how many times faster than dense's that is; ``columns``: title and part."""

    def table(found: Published) -> str:
        rows = []
        for method in _METHODS:
            cells = []
            for _, part in columns:
                runs = [found.of(part, one) for one in (BASELINE, method)]
                if min(map(len, runs)):
                    dense, own = (one["train_seconds_per_epoch"].mean() for one in runs)
                    cells += [f"{own:.1f}", f"{dense / own:.2f}"]
                else:
                    cells += [NONE] * 2
            if set(cells) != {NONE}:
                rows.append([method, *cells])
        return markdown(("method", *(head for title, _ in columns for head in (title, "speed-up"))), rows)

    return table


def _training(found: Published) -> str:
    """Of full width: MACs, and how many times faster than dense a step and a whole training are."""
    rows = []
    for method in _METHODS[1:]:
        runs = found.of("vgg16_full_time", method)
        if len(runs):
            steps = [found.times((f"step_{precision}_cut",), method) for precision in ("bf16", "fp32")]
            whole = found.seconds("vgg16_full_time", BASELINE) / found.seconds("vgg16_full_time", method)
            macs = first(runs.assign(share=runs["macs"] / runs["dense_macs"]), "share", "{:.2f}")
            rows.append([method, macs, *(speed(step) for step in steps), f"{whole:.2f}"])
    return markdown(("method", "MACs / dense", "a step, bfloat16", "a step, float32", "a training, bfloat16"), rows)


def _fits(found: Published) -> str:
    """Of each weight and rank the error, and the times faster, both against tensorly's."""
    rows = found.times(("fit",), None)
    methods = sorted(set(rows["method"]))
    cells = {
        (row.weight, row.rank, row.method): f"{row.error_ratio:.2f}, {row.speedup:.2g}" for row in rows.itertuples()
    }
    kinds = dict.fromkeys((weight, rank) for weight, rank, _ in cells)
    body = [[weight, str(rank), *(cells[weight, rank, method] for method in methods)] for weight, rank in kinds]
    return markdown(("weight", "rank", *methods), body)


def _noise(*rows: tuple[str, tuple[str, ...]]) -> Callable[[Published], str]:
    """How far seeds are apart; ``rows``: title, and parts with several seeds of each of their networks."""

    def table(found: Published) -> str:
        body = []
        for title, parts in rows:
            runs = found.finished(*parts)
            networks = runs.groupby(runs["directory"].str.rsplit("/", n=1).str[0])["test_accuracy"]
            variances = networks.var().dropna()
            if len(variances):
                deviation = 100 * variances.mean() ** 0.5
                apart = (2 * deviation * (2 / seeds) ** 0.5 for seeds in (1, 3))
                body.append([title, str(len(variances)), *(f"{one:.2f}" for one in (deviation, *apart))])
        head = ("runs", "networks of several seeds", "standard deviation of a seed", "two runs", "means of three seeds")
        return markdown(head, body)

    return table


def _literature(found: Published) -> str:
    """Published figures, each beside ours of the nearest part."""
    rows = []
    for row in pandas.read_csv(Path(__file__).with_name("literature.csv"), dtype=str).fillna("").itertuples():
        runs, dense = found.of(row.part, row.method, row.rank), found.of(row.part, BASELINE)
        gap = NONE
        if len(runs) and len(dense):
            points = difference(list(runs["test_accuracy"]), list(dense["test_accuracy"])).points
            gap = f"{round(points, 2) + 0:+.2f}"  # never -0.00
        ours = f"{row.method} {row.rank}: {accuracy(runs)}" if row.part else NONE
        rows.append([row.source, row.network, row.published, row.against_dense or NONE, ours, gap, row.not_comparable])
    head = ("source", "network, data, epochs", "published", "published, against dense", "ours (seeds)")
    return markdown((*head, "ours, against dense", "what differs"), rows)


def _commands(found: Published) -> str:
    """Every part: its command, how many of its runs are there, and from which versions."""
    rows = []
    for part in PROTOCOL:
        mine = found.parts[found.parts["part"] == part.name]
        if part.is_table:
            path = found.folder / "bench" / f"{part.name}.csv"
            versions = sorted(set(pandas.read_csv(path)["tdcompress"])) if path.is_file() else []
            count = f"`bench/{part.name}.csv`" if path.is_file() else NONE
        else:
            known = found.runs["directory"].isin([str(found.folder / one) for one in mine["directory"]])
            known &= found.runs["status"].isin(ENDED)  # others lie on the machine that runs them, and in no table
            versions = sorted(set(found.runs.loc[known, "tdcompress"]))
            count = f"{known.sum()} of {len(mine)}" if len(mine) else NONE
        words = " ".join((*part.words, *(["run=RUN"] if part.runs else [])))
        rows.append([part.what, f"`tdc {words}`", count, ", ".join(f"`{one}`" for one in versions)])
    return markdown(("what", "command", "runs", "versions"), rows)


_VGG = (
    ("10x, a start at full rank", "vgg16", "10x"),
    ("10x from scratch, in pairs (btt: blocks)", "vgg16_scratch", "10x"),
    ("10x from scratch, by channels", "vgg16_channels", "10x"),
    ("10x by fewer channels", "vgg16_narrow", None),
    ("5x", "vgg16_5x", "5x"),
    ("20x", "vgg16_ranks", "20x"),
    ("0.135 of the MACs", "vgg16_ranks", "macs:0.135"),
)
_CUT = (
    ("10x by channels, cut while training, Muon", "scratch_adaptive", None),
    ("0.4 of the MACs, ranks that stay, Muon", "scratch_macs", "macs:0.4"),
)
_SMALL = (
    ("LeNet-5, 6.5x", "lenet5_ring", "6.5x"),
    ("LeNet-5, 16.6x", "lenet5", "16.6x"),
    ("LeNet-5, 50x", "lenet5", "50x"),
    ("LeNet, 16.6x", "lenet", "16.6x"),
    ("LeNet, 50x", "lenet", "50x"),
)
_OTHER = (
    ("VGG-16, half as wide, 10x", "vgg16_half", "10x"),
    ("ResNet-20, 3x, 15 epochs", "resnet20", "3x"),
    ("ResNet-20, 5x, 15 epochs", "resnet20", "5x"),
    ("ResNet-20, 0.278 of the MACs, 15 epochs", "resnet20_macs", "macs:0.278"),
    ("ResNet-56, 3x, 15 epochs", "resnet56", "3x"),
    ("ResNet-18, a quarter as wide, 2x, 15 epochs", "resnet18", "2x"),
    ("LSTM, 10x", "lstm", "10x"),
    ("LeNet, tensor regression", "trl", None),
    ("LeNet, linear layers", "trl_linear", None),
)
_BATCHES = ({"batch_size": 1}, {"batch_size": 64})
_UNPAIRED = [{**one, "layout": ("channels", "split")} for one in _BATCHES]
TABLES: dict[str, Callable[[Published], str]] = {
    "answer": _answer,
    "vgg16": _accuracies(*_VGG),
    "vgg16_macs": _costs(*_VGG),
    "scratch": _accuracies(*_CUT),
    "scratch_macs": _costs(*_CUT),
    "noise": _noise(
        ("VGG-16 on CIFAR-10, a start at full rank", ("vgg16", "vgg16_5x")),
        ("the same from scratch", ("vgg16_scratch", "vgg16_channels", "scratch_adaptive", "scratch_macs")),
        ("LeNet-5 on MNIST", ("lenet5",)),
        ("LeNet on MNIST", ("lenet",)),
        ("an LSTM on MNIST", ("lstm",)),
    ),
    "mnist": _accuracies(*_SMALL),
    "other": _accuracies(*_OTHER),
    "reference": _accuracies(
        ("MNIST, LeNet", "reference_mnist", None), ("CIFAR-10, VGG-16", "reference_cifar10", None)
    ),
    "seconds": _seconds(("MNIST, LeNet, s", "reference_mnist_time"), ("CIFAR-10, VGG-16, s", "reference_cifar10_time")),
    "step": _speeds(
        ("a quarter as wide", ("step_bf16",), {}, "speedup"),
        ("full width", ("step_bf16_full", "step_bf16_blocks"), {}, "speedup"),
        ("full width, in pairs", ("step_bf16_pairs",), {}, "speedup"),
    ),
    "training": _training,
    "infer": _speeds(
        *((f"a quarter as wide, {one['batch_size']} at once", ("infer",), dict(one), "speedup") for one in _BATCHES),
        *((f"full width, {one['batch_size']} at once", ("infer_full",), dict(one), "speedup") for one in _BATCHES),
    ),
    "export": _speeds(
        ("smaller", ("export",), {"batch_size": 1}, "smaller"),
        *((f"{one['batch_size']} at once", ("export",), dict(one), "speedup") for one in _BATCHES),
        ("LeNet, smaller", ("export_lenet",), _UNPAIRED[0], "smaller"),
        *((f"LeNet, {one['batch_size']} at once", ("export_lenet",), one, "speedup") for one in _UNPAIRED),
    ),
    "fits": _fits,
    "literature": _literature,
    "commands": _commands,
}


def filled(text: str, found: Published) -> str:
    """A page with its tables made anew. Raises ``KeyError`` for a table that there is not."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]](found)}{block[3]}", text)


def write(folder: Path) -> None:
    """Make the tables of all pages anew from the published results; from others ``folder``/tables.md."""
    found = Published(folder)
    if folder.resolve() == PUBLISHED:
        for page in PAGES:
            page.write_text(filled(page.read_text(), found))
    else:
        tables = (f"## {name}\n\n{made(found)}" for name, made in TABLES.items())
        (folder / "tables.md").write_text("\n".join(tables))


def figures(folder: Path) -> list[str]:
    """The names of the figures that the pages show of the published results; of others none are chosen."""
    shown = re.compile(r"published/figures/([^)]+)\.png\)")
    pages = PAGES if folder.resolve() == PUBLISHED else ()
    return sorted({name for page in pages for name in shown.findall(page.read_text())})
