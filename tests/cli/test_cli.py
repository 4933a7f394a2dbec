"""The verbs as a user types them: what they answer, what bad input gets, and one whole run of each format."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tdcompress import cli
from tdcompress.config.compose import conf_dir
from tdcompress.data.sources import DATASETS
from tdcompress.models.build import ARCHS
from tdcompress.tensor.formats import FORMATS
from tdcompress.train.launch.launchers import LAUNCHERS

CONF = conf_dir()
GROUPS = {"method": FORMATS, "arch": ARCHS, "dataset": DATASETS, "launcher": LAUNCHERS}
REPORT = ("report.html", "report.md", "summary.csv", "metrics.csv")
CHOICES = [f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "experiment"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tdc(tmp_path, monkeypatch, capfd):
    """Run a verb in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tdc"])

    def run(line: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(shlex.split(line))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return code, *capfd.readouterr()

    return run


def test_a_verb_is_a_file():
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert set(cli.VERBS) <= files and all(f"tdc {verb} " in cli.HELP for verb in cli.VERBS)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["bench", "step", "--help"]])
def test_help_names_the_verbs_without_torch(words):
    code = (
        f"import sys; from tdcompress.cli import main; main({words!r}); "
        "assert not {'torch', 'hydra', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"tdc {verb} " in done.stdout for verb in cli.VERBS)


@pytest.mark.parametrize("group", GROUPS)
def test_every_registered_name_has_its_yaml(group):
    assert {path.stem for path in (CONF / group).glob("*.yaml")} == set(GROUPS[group])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_yaml_composes(tdc, tmp_path, choice):
    code, out, err = tdc(f"train {choice} --cfg job")
    assert (code, err) == (0, "")
    group, name = choice.split("=")
    assert group not in GROUPS or f": {name}\n" in out
    assert not any(tmp_path.iterdir())


BAD = {
    "train method=tq": f"unknown method 'tq', known: {', '.join(sorted(FORMATS))}",
    "train arch=resnet": "unknown arch 'resnet', known: gru, lenet, lenet5, lstm, vgg11, vgg13, vgg16",
    "train dataset.name=../../x": "unknown dataset '../../x', known: cifar10",
    "train arch.name=../../x": "unknown arch '../../x', known: gru, lenet",
    "train dataset=svhn": "unknown dataset 'svhn', known: cifar10, cifar100, digits, fashion_mnist, image_folder",
    "train optim=adam": "unknown optim 'adam', known: cosine, reference",
    "train lrr=3": "unknown key 'lrr' (did you mean lr?), known: dataset,",
    "train method.layot=matrix": "unknown key 'method.layot' (did you mean method.layout?), known in method: format,",
    "train +rnak=16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "train ++rnak=16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "train rnak=16 --cfg job": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "train +rnak=16 --cfg job": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "train -m +rnak=8,16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "train -m method=tt,cp +rnak=16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "train '+rnak={a: 3}'": "unknown key 'rnak' (did you mean rank?)",
    "train +rnak.a=3": "unknown key 'rnak' (did you mean rank?)",
    "train ~rnak": "unknown key 'rnak' (did you mean rank?)",
    "train +method.foo=3": "unknown key 'method.foo', known in method: format,",
    "train ++method.foo=3": "unknown key 'method.foo', known in method: format,",
    "train ~method.foo": "unknown key 'method.foo', known in method: format,",
    "train ~method.layout": "Could not delete from config. 'method.layout' does not exist",  # it is null
    "train +method.layot.a=3": "unknown key 'method.layot' (did you mean method.layout?)",
    "train 'method={layot: matrix}'": "unknown key 'method.layot' (did you mean method.layout?)",
    "train '+method={layot: matrix}'": "unknown key 'method.layot' (did you mean method.layout?)",
    "train '++method={layot: matrix}'": "unknown key 'method.layot' (did you mean method.layout?)",
    "train method.layersx=3": "unknown key 'method.layersx' (did you mean method.layers?)",
    "train +dataset.xyz=1": "unknown key 'dataset.xyz', known in dataset: name,",
    "train arch.targets.x=1": "unknown key 'arch.targets' (did you mean arch.target?)",
    "train +method@extra=cp": "unknown key 'extra', known: dataset,",
    "train rank.x=3": "unknown key 'rank.x': there is none in rank",
    "train hydra.sweeep.dir=x": "unknown key 'hydra.sweeep' (did you mean hydra.sweep?)",
    "train +hydra.job.nome=x": "unknown key 'hydra.job.nome' (did you mean hydra.job.name?)",
    "train -m method=tt,cp --cfg job": "--cfg shows one configuration",
    "show +rnak=16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "compress checkpoint=x +rnak=16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "compress rank=10x": "checkpoint=DIRECTORY of a run, or FILE of weights",
    "compress checkpoint= rank=10x": "checkpoint has no value",
    "compress checkpoint='a=b' rank=10x": "init_from=a=b: there is no a=b",
    "train method.layout=rows": "unknown method.layout 'rows', known: channels, matrix, split, paired",
    "train method.kernel=closed": "unknown method.kernel 'closed', known: merged, separate, open",
    "train method=tt method.kernel=open method.layout=channels": "kernel=open needs a format with a central core",
    "train method.plan=best": "unknown plan 'best', known: model, measure, contract, chain, dense",
    "train method.init=zero": "unknown init 'zero', known: variance",
    "train rank=0": "rank=0 must be at least 1",
    "train rank=-3": "rank=-3 must be at least 1",
    "train rank=adaptive:1x": "rank=adaptive:1x leaves nothing to cut while training: it must be more than 1x",
    "show method=tt 'method.layers={fc1:{rank:10x}}'": "method.layers.fc1: rank=10x is a budget of the whole network",
    "train rank=much": "rank=much is not a whole number; use for example rank=8, rank=[4,8] for two bonds, rank=",
    "train rank=1.5": "rank=1.5 is not a whole number",
    "train epochs=0": "epochs=0 must be at least 1",
    "train epochs=ten": "epochs: Value 'ten' of type 'str' could not be converted to Integer",
    "train lr=0": "lr=0 must be greater than 0",
    "train lr=-1": "lr=-1 must be greater than 0",
    "train lr=nan": "lr=nan must be greater than 0",
    "train batch_size=0": "batch_size=0 must be at least 1",
    "train arch.width=0": "arch.width=0 must be greater than 0",
    "train arch=lstm arch.hidden=0": "arch.hidden=0 must be at least 1",
    "train arch=gru arch.frames=0": "arch.frames=0 must be at least 1",
    "train arch=lstm dataset.frames=2": "arch.frames=2 does not divide the 1 channels of the data",
    "train arch=lstm arch.keep=[rnn.hidden,fc] rank=10x": "rank=10x cannot be met within 2 %: the smallest",
    "train optim.clip=0": "optim.clip=0 must be greater than 0",
    "train seed=-1": "seed=-1 must lie between 0 and",
    "train launcher=cloud": "unknown launcher 'cloud', known: basic, local",
    "train -m launcher.name=cloud": "unknown launcher 'cloud', known: basic, local",
    "train launcher.jobs=0": "launcher.jobs=0 must be at least 1",
    "train device=tpu": "unknown device 'tpu', known: auto, cpu, cuda",
    "train precision=fp16": "unknown precision 'fp16', known: auto, fp32, bf16",
    "train dataset=image_folder": "dataset=image_folder needs dataset.root=DIR",
    "train dataset=video_folder arch=lstm": "dataset=video_folder needs dataset.root=DIR",
    "train dataset.frames=0": "dataset.frames=0 must be at least 1",
    "train arch=vgg16 dataset.image_size=8": "arch=vgg16",
    "train method=tt method.layout=split method.in_modes=[3,3]": "layer conv2: in_modes=[3, 3] has product 9",
    "train optim.optimizer._target_=torch.optim.Nothing": "torch.optim.Nothing cannot be imported",
    "train method=tt,cp": "Ambiguous value for argument 'method=tt,cp'",
    "show method=tq": "unknown method 'tq', known:",
    "runs rank=much": "rank=much is not a whole number",
    "show rank=0": "rank=0 must be at least 1",
    "plot": "no finished runs in results/runs",
    "plot formats=gif": "unknown figure format 'gif', known: png, svg, pdf",
    "plot size=3": "unknown key 'size', known: results_dir, formats, dataset,",
    "report": "no finished runs in results: tdc train",
    "report method=tt": "unknown key 'method', known: results_dir",
    "runs method": "'method' is not of the form key=value",
    "runs speed=3": "unknown key 'speed'",
    "runs rnak=3": "unknown key 'rnak' (did you mean rank?), known: results_dir, dataset,",
    "runs --status=3": "unknown key '--status' (did you mean status?)",
    "show method=tt 'method.layers={fc1:{factors:two}}'": "layer fc1: method.layers.fc1.factors: Value 'two'",
    "show method=tt arch=lenet 'method.layers={fc2:{rank:2}}'": "method.layers: fc2 stays dense (kept: the last",
    "show method=tt 'method.layers={fc1:{rank:vbmf}}'": "rank=vbmf follows from trained weights",
    "show method=tt 'method.layers={fc1:{rnak:2}}'": "'method.layers.fc1.rnak' (did you mean method.layers.fc1.rank?)",
    "show method=tt method.layers.fc1.rnak=2": "'method.layers.fc1.rnak' (did you mean method.layers.fc1.rank?)",
    "trane": "unknown verb 'trane', known: train, compress, show, runs, plot, report, export, bench",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(tdc, tmp_path, line):
    code, out, err = tdc(line)
    assert code == 2
    assert err.startswith("tdc: ") and err.count("\n") == 1 and BAD[line] in err
    assert "Traceback" not in out + err
    assert not any(tmp_path.iterdir())


# What a user's own yaml says, as which file, chosen how, and what is then answered.
OWN = [
    ("experiment", "# @package _global_\nrnak: 3\n", "In 'experiment/own': unknown key 'rnak' (did you mean rank?)"),
    (
        "experiment",
        "# @package _global_\nmethod: {layot: x}\n",
        "unknown key 'method.layot' (did you mean method.layout?)",
    ),
    ("experiment", "# @package _global_\nhydra: {swep: 1}\n", "unknown key 'hydra.swep' (did you mean hydra.sweep?)"),
    ("experiment", "rank: 3\n", "In 'experiment/own': unknown key 'experiment', known: dataset,"),
    ("arch", "name: lenet\nwidht: 2\n", "In 'arch/own': unknown key 'arch.widht' (did you mean arch.width?)"),
    ("arch", "# @package other\nname: lenet\n", "unknown key 'other', known: dataset,"),
    ("optim", "defaults: [schema, _self_]\nclipp: 2\n", "unknown key 'optim.clipp' (did you mean optim.clip?)"),
]
SWEEP = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      {}: 3,4\n      method: tt,cp\n"
OWN += [
    ("experiment", SWEEP.format(key), "unknown key 'rnak' (did you mean rank?)") for key in ("rnak", "+rnak", "++rnak")
]


@pytest.mark.parametrize(("group", "text", "answer"), OWN)
def test_a_key_that_is_none_in_a_file_of_ones_own(tdc, tmp_path, group, text, answer):
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "own.yaml").write_text(text)
    code, out, err = tdc(f"train --config-dir=conf {group}=own")
    assert code == 2
    assert err.startswith("tdc: ") and err.count("\n") == 1 and answer in err
    assert "Traceback" not in out + err
    assert {path.name for path in tmp_path.iterdir()} == {"conf"}


@pytest.mark.parametrize(
    "word",
    [
        "method.layers.fc1.rank=2",
        "+method.layers.fc1.rank=2",
        "++method.layers.fc1.rank=2",
        "'method.layers={fc1: {rank: 2}}'",
        "optim.optimizer.dampening=0.5",
        "+optim.optimizer.dampening=0.5",
        "optim.scheduler.last_epoch=3",
        "arch.target.depth=3",
        "'arch.target={_target_: mine.Net, depth: 3}'",
        "+dataset.target.path.deep=here",
        "+hydra.job.env_set.HERE=1",
    ],
)
def test_open_dictionaries_take_any_key(tdc, word):
    code, out, err = tdc(f"train {word} --cfg job")
    key, _, value = word.strip("'+").partition("=")
    assert (code, err) == (0, "")
    assert not value or key.startswith("hydra") or f"{key.split('.')[-1]}:" in out


def test_a_sweep_of_nothing_but_mistakes_leaves_nothing(tdc, tmp_path):
    code, _, err = tdc("train -m rank=0,much")
    assert code == 2 and err.splitlines()[-1] == "tdc: 2 of 2 runs failed: rank=0; rank=much"
    assert not any(tmp_path.iterdir())


def test_cuda_where_there_is_none(tdc, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = tdc("train device=cuda")
    assert code == 2 and err.count("\n") == 1 and "device=cuda: torch finds no CUDA device" in err
    assert not any(tmp_path.iterdir())


def test_a_download_that_fails_says_where_the_files_go(tdc, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    code, _, err = tdc("train dataset=cifar10 dataset.root=here")
    assert code == 2 and err.count("\n") == 1 and "here" in err and "cifar-10-batches-py" in err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("method", sorted(FORMATS))
def test_each_format_learns_the_digits(tdc, tmp_path, method):
    code, out, err = tdc(f"train method={method} rank=reference arch.width=0.5 epochs=8 batch_size=50")
    assert (code, err) == (0, "")
    (path,) = tmp_path.glob("results/runs/digits/lenet/*/seed0/summary.json")
    summary = json.loads(path.read_text())
    assert summary["status"] == "finished" and summary["method"] == method
    assert summary["test_accuracy"] >= 0.9
    assert str(path.parent.relative_to(tmp_path)) in out
    assert (path.parent / ".hydra" / "overrides.yaml").read_text().startswith(f"- method={method}\n")
    assert len((path.parent / "metrics.csv").read_text().splitlines()) == 9


def test_a_sweep_goes_on_after_a_failure_and_names_it(tdc, tmp_path):
    code, out, err = tdc("train -m rank=0,2 epochs=1 dataset.limit=100 arch.width=0.25")
    assert code == 1
    assert err.splitlines()[-1] == "tdc: 1 of 2 runs failed: rank=0 epochs=1 dataset.limit=100 arch.width=0.25"
    assert len(list(tmp_path.glob("results/runs/digits/lenet/tt-2-*/seed0/summary.json"))) == 1

    for spelling in ("2", "02,3", "10X,+2"):
        code, out, err = tdc(f"runs rank={spelling}")
        assert code == 0 and out.count("finished") == 1
    code, out, err = tdc("train rank=2 epochs=1 dataset.limit=100 arch.width=0.25")
    assert code == 0 and "not run again" in out

    code, out, err = tdc("report")
    assert code == 0 and out.splitlines() == [f"results/{name}" for name in REPORT]
    assert all((tmp_path / line).stat().st_size > 100 for line in out.splitlines())
    code, out, err = tdc("plot formats=png")
    figures = [Path(line) for line in out.splitlines()]
    assert code == 0 and figures and all((tmp_path / figure).stat().st_size > 5000 for figure in figures)


NETWORKS = """
import gc, weakref
import torch
from torch import nn

before = []

class Hungry(nn.Flatten):
    def forward(self, x):
        if self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB. GPU 0 has less")
        return super().forward(x)

def network(first, in_channels, classes, image_size):
    gc.collect()
    assert not [model for model in before if model() is not None], "of the run before"
    model = nn.Sequential(first, nn.Linear(in_channels * image_size**2, classes))
    before.append(weakref.ref(model))
    return model

def hungry(**sizes):
    return network(Hungry(), **sizes)

def good(**sizes):
    return network(nn.Flatten(), **sizes)

class Wrong(nn.Flatten):
    def forward(self, x):
        if self.training:
            raise RuntimeError("no such layer")
        return super().forward(x)

def wrong(**sizes):
    return network(Wrong(), **sizes)
"""


def test_a_sweep_goes_on_when_a_run_needs_more_memory_than_there_is(tdc, tmp_path):
    (tmp_path / "hunger.py").write_text(NETWORKS)
    (tmp_path / "conf/arch").mkdir(parents=True)
    for name in ("hungry", "wrong", "good"):
        text = f"defaults: [schema, _self_]\nname: {name}\ntarget:\n  _target_: hunger.{name}\n"
        (tmp_path / f"conf/arch/{name}.yaml").write_text(text)
    code, _, err = tdc(
        "train -m --config-dir=conf arch=hungry,wrong,good method=dense epochs=1 dataset.limit=100 device=cpu"
    )
    assert code == 1
    hungry, wrong, last = err.splitlines()
    assert "arch=hungry" in hungry and "(CUDA out of memory. Tried to allocate 7.00 GiB), peak so far" in hungry
    assert hungry.endswith("use a smaller batch_size (now 100), rank or arch.width")
    assert wrong.endswith(": no such layer")
    assert last.startswith("tdc: 2 of 3 runs failed: arch=hungry ") and "; arch=wrong " in last
    assert len(list(tmp_path.glob("results/runs/digits/hunger.good/*/seed0/metrics.csv"))) == 1


def test_a_reader_that_leaves_is_no_error(tmp_path):
    words = [sys.executable, "-m", "tdcompress", "train", "dataset.limit=100", "arch.width=0.25", "epochs=1000"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_ones_own_network_is_named_on_the_command_line(tdc):
    rest = "arch.keep=[] dataset=cifar10 dataset.image_size=64 method=tt rank=4"
    code, out, err = tdc(f"show 'arch.target={{_target_: torchvision.models.squeezenet1_1}}' {rest}")
    assert (code, err) == (0, "") and "features.12.expand3x3" in out
    assert tdc(f"show arch.target._target_=torchvision.models.squeezenet1_1 {rest}")[1] == out


def test_show_prints_the_layers_and_writes_nothing(tdc, tmp_path):
    code, out, err = tdc("show method=tucker arch=vgg16 dataset=cifar10 rank=reference")
    assert (code, err) == (0, "")
    assert "features.conv3_2" in out and "factor_i:1x1 > core:3x3 >" in out
    # All but the first convolution and the last linear layer at ceil(C/3); see tests/test_report.py for the counts.
    assert "2,822,178 parameters, dense 14,785,866: 5.24x smaller" in out
    assert not any(tmp_path.iterdir())
