"""What a user types: bad input gets one line and leaves nothing, open dictionaries take any key."""

from __future__ import annotations

import pytest

from tdcompress.tensor.formats import FORMATS

pytestmark = pytest.mark.usefixtures("one_thread")

BAD = {
    "train method=tq": f"unknown method 'tq', known: {', '.join(sorted(FORMATS))}",
    "train arch=resnet": "unknown arch 'resnet' (did you mean resnet56?), known: gru, lenet, lenet5, lstm, resnet18",
    "train dataset.name=../../x": "unknown dataset '../../x', known: cifar10",
    "train arch.name=../../x": "unknown arch '../../x', known: gru, lenet",
    "train dataset=svhn": "unknown dataset 'svhn', known: cifar10, cifar100, digits, fashion_mnist, image_folder",
    "train optim=adam": "unknown optim 'adam' (did you mean adamw?), known: adamw, cosine, muon, reference, sgd",
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
    "train ~method.layout": "'~method.layout': a key is not removed, it is given a value, method.layout=..",
    "train +method.layot.a=3": "unknown key 'method.layot' (did you mean method.layout?)",
    "train 'method={layot: matrix}'": "unknown key 'method.layot' (did you mean method.layout?)",
    "train '+method={layot: matrix}'": "unknown key 'method.layot' (did you mean method.layout?)",
    "train '++method={layot: matrix}'": "unknown key 'method.layot' (did you mean method.layout?)",
    "train method.layersx=3": "unknown key 'method.layersx' (did you mean method.layers?)",
    "train +dataset.xyz=1": "unknown key 'dataset.xyz', known in dataset: name,",
    "train arch.targets.x=1": "unknown key 'arch.targets' (did you mean arch.target?)",
    "train +method@extra=cp": "'+method@extra=cp': method has its own place, method=cp",
    "train rank.x=3": "unknown key 'rank.x': there is none in rank",
    "train hydra.sweeep.dir=x": "unknown key 'hydra.sweeep' (did you mean hydra.sweep?)",
    "train +hydra.job.nome=x": "unknown key 'hydra.job.nome' (did you mean hydra.job.name?)",
    "train -m method=tt,cp --cfg job": "--cfg shows one configuration",
    "show +rnak=16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "compress checkpoint=x +rnak=16": "unknown key 'rnak' (did you mean rank?), known: dataset,",
    "compress rank=10x": "checkpoint=DIRECTORY of a run, or FILE of weights",
    "compress checkpoint= rank=10x": "checkpoint has no value",
    "compress checkpoint='a=b' rank=10x": "checkpoint=a=b: there is no a=b",
    "compress checkpoint=x full_rank_epochs=2": "full_rank_epochs= is of tdc train",
    "compress checkpoint=x out=notes.txt": "out=notes.txt must end in .pt, .pth or .safetensors",
    "compress checkpoint=./x.pt out=x.pt": "out=x.pt is the network that is to be decomposed",
    "train method=[tt,cp]": "method=[tt,cp]: method is one choice, not a list; -m method=btt,cp is a sweep",
    "train optim=[sgd,adamw]": "optim is one choice, not a list",
    "train method=schema": "unknown method 'schema', known: btt, cp",
    "train method.layout=rows": "unknown method.layout 'rows', known: channels, matrix, split, paired",
    "train method.kernel=closed": "unknown method.kernel 'closed', known: merged, separate, open",
    "train method=tt method.kernel=open method.layout=channels": "kernel=open needs a format with a central core",
    "train method.plan=best": "unknown plan 'best', known: model, measure, contract, chain, dense",
    "train method.init=zero": "unknown init 'zero', known: variance",
    "train rank=10x epochs=3 method.init=orthogonal": "method.init=orthogonal is for cores that begin from scratch",
    "train lr=0.01 optim.optimizer.lr=0.5": "optim.optimizer.lr: the learning rate is lr=..",
    "train rank=5x epochs=6 method.decay=scaled": "use cut=at_once, or another decay",
    "train optim=cosine optim.scheduler.T_max=epochs": "optim.scheduler.T_max=epochs, and optim.interval=step",
    "train launcher.gpus=1": "launcher.gpus=1 is asked of a cluster: launcher=slurm",
    "train experiment=quick/trl,quick/mnist_comparison": "a sweep has one: a command for each",
    "train rank=adaptive:10x cut=at_once": "rank=adaptive:10x is reached by cuts while training, not at_once: rank=10x",
    "train rank=0": "rank=0 must be at least 1",
    "train rank=-3": "rank=-3 must be at least 1",
    "train rank=adaptive:1x": "rank=adaptive:1x leaves nothing to cut while training: it must be more than 1x",
    "show method=tt 'method.layers={fc1:{rank:10x}}'": "method.layers.fc1: rank=10x is a budget of the whole network",
    "train rank=much": "rank=much is not a whole number; use for example rank=8, rank=[4,8] for two bonds, rank=",
    "train rank=1.5": "rank=1.5 is not a whole number",
    "train epochs=0": "epochs=0 must be at least 1",
    "train epochs=ten": "epochs=ten is not a whole number",
    "train lr=0": "lr=0 must be greater than 0",
    "train lr=-1": "lr=-1 must be greater than 0",
    "train lr=nan": "lr=nan must be greater than 0",
    "train batch_size=0": "batch_size=0 must be at least 1",
    "train arch.width=0": "arch.width=0 must be greater than 0",
    "train arch=lstm arch.hidden=0": "arch.hidden=0 must be at least 1",
    "train arch=gru arch.frames=0": "arch.frames=0 must be at least 1",
    "train arch=lstm dataset.frames=2": "dataset.frames=2 is for clips: leave it out, or use dataset=video_folder",
    "train arch=lstm arch.frames=2": "arch.frames=2 does not divide the 1 channels of the data",
    "train arch=lstm arch.keep=[rnn.hh_l0,fc] rank=10x": "rank=10x cannot be met within 2 %: the smallest",
    "train optim.clip=0": "optim.clip=0 must be greater than 0",
    "train optim.core_lr=equal": "unknown optim.core_lr 'equal', known: same, balanced",
    "train optim=sgd method.decay=scaled": "optim.core_lr=balanced gives each core a decay of its own",
    "train =5": "'=5' has no key in front of the equals sign",
    "show +=5": "'+=5' has no key in front of the equals sign",
    "train arch.keep=conv1": "arch.keep=conv1 is not a list, such as arch.keep=[first,second]",
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
    "train method=tt,cp": "method=tt,cp has several values: did you mean a sweep, with -m?",
    "show method=tq": "unknown method 'tq', known:",
    "runs rank=much": "rank=much is not a whole number",
    "show rank=0": "rank=0 must be at least 1",
    "plot": "no finished runs in results/runs",
    "plot format=gif": "unknown format 'gif', known: png, svg, pdf",
    "plot size=3": "size=3 is none of column, page, and a width and a height in inches, such as 5.5x3",
    "report": "no finished runs in results: tdc train",
    "report method=tt": "unknown key 'method', known: results_dir",
    "runs method": "'method' is not of the form key=value",
    "runs speed=3": "unknown key 'speed'",
    "runs rnak=3": "unknown key 'rnak' (did you mean rank?), known: results_dir, dataset,",
    "runs --status=3": "unknown key '--status' (did you mean status?)",
    "show method=tt 'method.layers={fc1:{factors:two}}'": "layer fc1: method.layers.fc1.factors=two is not a whole",
    "show method=tt arch=lenet 'method.layers={fc2:{rank:2}}'": "layers: fc2 stays dense (kept: the last",
    "show method=tt 'method.layers={fc1:{rank:vbmf}}'": "rank=vbmf follows from trained weights",
    "show method=tt 'method.layers={fc1:{rnak:2}}'": "'method.layers.fc1.rnak' (did you mean method.layers.fc1.rank?)",
    "show method=tt method.layers.fc1.rnak=2": "'method.layers.fc1.rnak' (did you mean method.layers.fc1.rank?)",
    """show method=tt 'method.layers={"fc1":{rank:6}}'""": "stand without quotes, method.layers={fc1:{rank:6}}",
    "train -sc": "--shell-completion needs install=SHELL or uninstall=SHELL",
    "trane": "unknown verb 'trane' (did you mean train?), known: train, compress, show, runs, best, plot, report,",
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
