"""The ``tdc`` verbs. Everything heavy is imported by the verb that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..config.compose import call_composed, one_line, typed
from ..config.schema import LauncherConfig, TrainConfig
from ..tensor.errors import ConfigError
from ..tensor.rank import parse_rank

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from ..results.record import Summary
    from ..train.launch.job import Job


HELP = """\
tdc trains networks with their weights in a tensor format, and compares the formats.

  tdc train method=tt dataset=cifar10        train one network
  tdc train -m method=cp,tt rank=4,8         train one after the other: a sweep
  tdc train -m launcher=local seed=0,1,2     several at once: launcher.jobs=2
  tdc compress checkpoint=RUN rank=10x       decompose a trained network; tdc train init_from=FILE goes on from it
  tdc show method=ht arch=vgg16              what each layer holds and costs, without training
  tdc runs method=tt status=finished         the runs there are
  tdc plot results_dir=results               draw the comparison figures
  tdc report results_dir=results             tables and figures as one page, and the tables that a repository keeps
  tdc export run=DIR format=onnx             a trained network as ONNX, as a torch program, or its dense weights
  tdc bench layers method=cp threads=2       time layers, or a step, inference, the loop (tdc bench step, infer, loop)

`tdc train --help` lists every key; `tdc train --cfg job` prints the configuration.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit with its code: 0, 1 if runs of a sweep failed, 2 for bad input, 130 or 143 upon a signal."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if int(os.environ.get("RANK", "0")) > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (of the processes that torchrun starts, the first one speaks)
    if words[:1] == ["-sc"] or words[:1] == ["--shell-completion"]:
        words = ["train", *words]
    composed = words[:1] in (["train"], ["show"], ["compress"])  # Hydra has a page of its own for these
    if not words or words[0] == "help" or (not composed and {"-h", "--help"} & set(words)):
        print(HELP, end="")
        return
    if words[0] not in VERBS:
        _fail(f"unknown verb '{words[0]}', known: {', '.join(VERBS)} (tdc --help shows one example each)")
    try:
        VERBS[words[0]](words[1:])
    except ConfigError as error:
        _fail(str(error))
    except KeyboardInterrupt as stop:
        print(stop if str(stop) else "interrupted", file=sys.stderr)
        sys.exit(getattr(stop, "code", 130))
    except BrokenPipeError:  # whoever read the output has left, as in: tdc runs | head
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it at the end)
        sys.exit(141)


def _fail(message: str, code: int = 2) -> None:
    print("tdc: " + _squeezed(message), file=sys.stderr)
    sys.exit(code)


def _squeezed(message: object) -> str:
    return " ".join(str(message).split())


def _train(words: list[str]) -> None:
    jobs: list[Job] = []
    failed: list[tuple[str, Exception]] = []
    finished: dict[Path, Summary] = {}
    baselines: dict[tuple[str, ...], TrainConfig] = {}
    sweep = False

    def job(raw: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        nonlocal sweep
        hydra = HydraConfig.get()
        sweep = hydra.mode is not None and hydra.mode.name == "MULTIRUN"
        overrides = list(hydra.overrides.task)
        try:
            jobs.append(_job(raw, overrides, baselines))
        except ConfigError as error:  # raised below: Hydra would print its own lines, and end a sweep
            fail(" ".join(overrides), error)

    def fail(overrides: str, error: Exception) -> None:
        failed.append((overrides, error))
        if sweep:
            error.__traceback__ = None  # it would keep the failed run's network while the others train
            print(f"tdc: {overrides}: {_squeezed(error)}", file=sys.stderr)

    def ended(job: Job, outcome: Summary | Exception) -> None:
        if isinstance(outcome, Exception):
            fail(job.overrides, outcome)
        else:
            finished[job.directory] = outcome

    call_composed(words, job)
    if jobs:
        from ..train.launch.launchers import launch

        try:
            launch(jobs, jobs[0].config.launcher if sweep else LauncherConfig(), _say, ended)
        finally:
            if finished:
                order = dict.fromkeys(job.directory for job in jobs)
                from .tables import print_outcome

                print_outcome({directory: finished[directory] for directory in order if directory in finished})
    if failed and not sweep:
        raise failed[0][1]
    if failed:
        names = "; ".join(overrides for overrides, _ in failed)
        _fail(f"{len(failed)} of {len(failed) + len(finished)} runs failed: {names}", code=1 if finished else 2)


def _job(raw: DictConfig, overrides: list[str], baselines: dict[tuple[str, ...], TrainConfig]) -> Job:
    """``baselines`` keeps from one run of a sweep to the next what they share: to compose takes a tenth of a second."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    raw = _as_saved(raw, overrides)
    config = typed(raw)
    names = {"dataset": config.dataset.name, "arch": config.arch.name, "method": config.method.format}
    key = tuple(f"{group}={name}" for group, name in names.items())
    if key not in baselines:
        try:
            baselines[key] = typed(compose("train", overrides=list(key)))
        except HydraException as error:  # a name that was given as a value, so that no yaml was looked for
            raise ConfigError(one_line(error)) from None

    from ..results.identity import run_directory
    from ..train.launch.job import Job

    files = {
        ".hydra/config.yaml": OmegaConf.to_yaml(raw),
        ".hydra/overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(overrides)),
    }
    return Job(config, run_directory(config, baselines[key]), files, " ".join(overrides))


def _as_saved(raw: DictConfig, overrides: list[str]) -> DictConfig:
    """With ``init_from``, what the network was saved with, unless the command line or an experiment says otherwise."""
    from omegaconf import OmegaConf

    given = {word.lstrip("+~").split("=", 1)[0] for word in overrides}
    if raw.init_from is None or "experiment" in given:
        return raw

    from ..train.weights import read_weights

    weights = read_weights(raw.init_from)
    parts = ("dataset", "arch", "method", "rank") if weights.cores else ("dataset", "arch")
    saved = {part: weights.config[part] for part in parts if part not in given} if weights.config else {}
    merged = OmegaConf.merge(raw, saved)
    for key in given:
        if key.split(".")[0] in saved:
            OmegaConf.update(merged, key, OmegaConf.select(raw, key))
    return cast("DictConfig", merged)


def _say(line: str) -> None:
    print(line, flush=True)


def _show(words: list[str]) -> None:
    from ..compression.counts import count
    from .tables import print_report

    shown: list[tuple[dict[str, Any], Any] | ConfigError] = []

    def job(raw: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        try:
            config = typed(_as_saved(raw, list(HydraConfig.get().overrides.task)))
            shown.append((count(*_network(config)), config.rank))
        except ConfigError as error:
            shown.append(error)

    call_composed(words, job)
    for outcome in shown:
        if isinstance(outcome, ConfigError):
            raise outcome
        print_report(*outcome)


def _network(config: TrainConfig) -> tuple[nn.Module, tuple[int, int, int]]:
    from ..device.machine import choose_device
    from ..train.network import initial

    return initial(config, choose_device(config.device))


def _compress(words: list[str]) -> None:
    own = ("checkpoint=", "out=")
    options = _pairs([word for word in words if word.startswith(own)])
    if not options.get("checkpoint"):
        raise ConfigError("say which network is to be decomposed: checkpoint=DIRECTORY of a run, or FILE of weights")
    jobs: list[Job | ConfigError] = []
    baselines: dict[tuple[str, ...], TrainConfig] = {}

    def job(raw: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        try:
            jobs.append(_job(raw, list(HydraConfig.get().overrides.task), baselines))
        except ConfigError as error:
            jobs.append(error)

    call_composed([*(word for word in words if not word.startswith(own)), f"init_from={options['checkpoint']}"], job)
    out = options.get("out")
    if out is not None and len(jobs) > 1:
        raise ConfigError(f"out={out} is one file, and these are {len(jobs)} networks: without it each has its own")
    for outcome in jobs:
        if isinstance(outcome, ConfigError):
            raise outcome
        _decompose(outcome, out)


def _decompose(job: Job, out: str | None) -> None:
    from ..compression.counts import count
    from ..train.weights import layer_errors, read_weights, write_compressed
    from .tables import print_report

    config = job.config
    weights = read_weights(str(config.init_from))
    weights.refuse_factorised()
    model, image = _network(config)
    report, errors = count(model, image), layer_errors(model, weights)
    for layer in report["layers"]:
        layer |= {"error": errors[layer["name"]]} if layer["name"] in errors else {}
    print_report(report | {"error": errors[""]}, config.rank)
    path = Path(out or Path(config.results_dir, "compressed", *job.directory.parts[-4:]).with_suffix(".pt"))
    write_compressed(path, model, config)
    print(path)


def _runs(words: list[str]) -> None:
    options = _pairs(words)
    results_dir = options.pop("results_dir", "results")

    from ..results.rows import read_runs

    filters = _filters(options)
    table = read_runs(results_dir, **filters)
    if table.empty:
        print(f"no runs in {Path(results_dir) / 'runs'}" + (" like that" if filters else ""))
        return

    from .tables import print_runs

    print_runs(table)


def _plot(words: list[str]) -> None:
    options = _pairs(words)
    results_dir = options.pop("results_dir", "results")
    extensions = options.pop("formats", "png,svg").split(",")

    from ..results.figures import plot_all

    for path in plot_all(results_dir, extensions, **_filters(options)):
        print(path)


def _bench(words: list[str]) -> None:
    from ..bench import run

    run(words)


def _export(words: list[str]) -> None:
    from .export import run

    run(_pairs(words))


def _write_report(words: list[str]) -> None:
    options = _pairs(words)
    results_dir = options.pop("results_dir", "results")
    if options:
        raise ConfigError(f"unknown key '{next(iter(options))}', known: results_dir")

    from ..results.page import write_report

    for path in write_report(results_dir):
        print(path)


def _filters(options: dict[str, str]) -> dict[str, list[str]]:
    """The values of each column that are wanted; a list of bond sizes is one rank."""
    return {
        key: [str(parse_rank(value))] if key == "rank" and value.startswith("[") else value.split(",")
        for key, value in options.items()
    }


def _pairs(words: list[str]) -> dict[str, str]:
    odd = [word for word in words if "=" not in word]
    if odd:
        raise ConfigError(f"'{odd[0]}' is not of the form key=value")
    return dict(word.split("=", 1) for word in words)


VERBS: dict[str, Callable[[list[str]], None]] = {
    "train": _train, "compress": _compress, "show": _show, "runs": _runs, "plot": _plot, "report": _write_report,
    "export": _export, "bench": _bench,
}  # fmt: skip
