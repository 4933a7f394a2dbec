"""``tdc export``: a run's trained network as a file, for other programs or for ``tdcompress.load``.

tdc export run=RUN format=onnx                       # for onnxruntime and others, with the cores in it
tdc export run=RUN format=torch weights=folded       # a program for torch.export.load
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..compression.comparison import Comparison, Side, at_hand, compared
from ..compression.export.files import WEIGHTS, WRITERS, Trained, Writer, export
from ..compression.export.fold import fold
from ..compression.survey.plans import use_plans
from ..config.words import choice, read
from ..device.files import RunError
from ..device.machine import device_name
from ..results.identity import plain, typed
from ..results.run import Run
from ..tensor.errors import ConfigError
from ..train import checkpoint
from ..train.network import dense, fitting, restored
from .shared.tables import print_comparison

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ExportOptions:
    """``run``: its directory; ``format``: the kind of file; both must be given. ``output``: the file, by default the
    format's own name in the run; ``weights``: what it holds, by default the first of these that the format has;
    ``test``: let the network answer the test images before and after, if these are at hand.
    """

    run: str = ""
    format: str = choice("", WRITERS)
    output: str | None = None
    weights: str | None = choice(None, WEIGHTS)
    test: bool = True


def run(words: Sequence[str]) -> None:
    """``tdc export run=DIR format=onnx [output=FILE] [weights=cores] [test=false]``: write the file, and compare it.

    It is compared with its dense weights, put together of the cores, as such a file; a file of dense weights with the
    network as it was trained, and one of layers that hold cores with the ``state_dict`` of dense weights.
    Raises ``ConfigError`` for bad options, ``RunError`` for a directory without a trained network, and where what was
    written is not what was trained; then there is no file.
    """
    options = read(words, ExportOptions)
    for key, example in (("run", "results/runs/digits/lenet/tt-8/seed0"), ("format", "onnx")):
        if not getattr(options, key):
            raise ConfigError(f"tdc export needs {key}=, for example {key}={example}")
    writer = WRITERS[options.format]
    if options.weights is not None and options.weights not in writer.weights:
        held = writer.weights[0] if writer.weights else "dense weights"
        raise ConfigError(f"format={options.format} holds {held}: leave weights={options.weights} out")
    writer.refuse_missing()
    trained = load(Path(options.run))
    path = Path(options.output or trained.directory / writer.name)
    if path.suffix != (ending := Path(writer.name).suffix):
        raise ConfigError(f"output={path} must end in {ending}, by which whoever reads it knows what it is")
    weights = options.weights or next(iter(writer.weights), None)
    network = trained.holding(weights, writer.of_plain)
    test = at_hand(trained.config, _CPU, print) if options.test else None
    known = Run(trained.directory).summary()
    normalisation = (known.normalisation if known is not None else {}) or (test.normalisation if test else {})
    written = export(trained, writer, network, path, {"config": plain(trained.config), **normalisation})
    after = Side.of(path.name, network, trained.image, path.stat().st_size, written)
    comparison = compared(_before(trained, writer), after, trained.image, _CPU, test)
    print_comparison(comparison, _CPU)
    _record(trained.directory, options.format, writer, weights, comparison)
    if normalisation:
        mean, std = (", ".join(f"{value:.6g}" for value in normalisation[key]) for key in ("mean", "std"))
        print(f"it takes images (pixels - mean) / std of pixels 0 to 255, by channel: mean {mean}; std {std}")
    print(path)


def load(directory: Path) -> Trained:
    """A run's trained network (see ``checkpoint.chosen``).

    Raises ``RunError`` where there is no run, no checkpoint, or one that its own configuration does not fit.
    """
    state = checkpoint.of_run(directory, print)
    config = typed(state["config"])
    with torch.random.fork_rng([]):
        model, image = restored(replace(config, precision="fp32"), _CPU, directory, state)
    with fitting(directory):
        use_plans(model, state["plans"])
    model = model.to(memory_format=torch.channels_last).eval()
    twin, _ = dense(config)
    twin.load_state_dict(fold(model, image, plan="dense").state_dict())
    return Trained(directory, config, image, model, twin.to(memory_format=torch.channels_last).eval())


def _before(trained: Trained, writer: Writer) -> Side:
    if not writer.weights:
        return Side.of("as trained", trained.factorised, trained.image)
    if not writer.of_plain:
        return Side.of("dense weights", trained.dense, trained.image)
    content = writer.write(trained.dense, trained.image, {})
    return Side.of("dense weights", trained.dense, trained.image, len(content), writer.read(content, trained.dense))


def _record(directory: Path, format: str, writer: Writer, weights: str | None, comparison: Comparison) -> None:
    """Add the file to the run's summary; where that cannot be, say why: the file is there all the same."""
    usual = weights is None or weights == writer.weights[0]
    found = {
        "kind": format if usual else f"{format} {weights}",
        "format": format,
        "weights": weights,
        "bytes": comparison.after.bytes,
        "ms": {str(batch): pairs.rival_ms for batch, pairs in comparison.times.items()},
        "speedup": {str(batch): pairs.ratio for batch, pairs in comparison.times.items()},
        "device": device_name(_CPU),
    }
    try:
        Run(directory).add_export(found)
    except RunError as error:
        print(f"not in the run's summary: {error}")
