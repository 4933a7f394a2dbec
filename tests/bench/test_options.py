"""The options of a benchmark, and what bad ones are answered."""

from __future__ import annotations

import pytest
from cases import FACTORISED, WAYS

from tdcompress.bench.layers import LayerOptions
from tdcompress.bench.machine import methods
from tdcompress.bench.step import StepOptions
from tdcompress.config.words import read
from tdcompress.tensor.layout import LAYOUTS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_bf16_is_refused_where_it_is_emulated(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("tdcompress.device.precision.native_bf16", lambda device: False)
    code, _, err, _ = bench("layers layers=lenet.conv2 precision=bf16 device=cpu")
    assert code == 2 and err.count("\n") == 1 and "precision=bf16: this CPU has no bf16 arithmetic" in err
    assert not any(tmp_path.iterdir())


BAD = {
    "": "tdc bench needs a benchmark, known: layers, step, infer, export, fit, loop",
    "layer": "unknown benchmark 'layer', known: layers, step, infer, export, fit, loop",
    "layers rnak=3": "unknown key 'rnak' (did you mean rank?), known: method, repeats, threads,",
    "layers rank": "'rank' is not of the form key=value",
    "layers rank=": "rank has no value",
    "layers rank=much": "rank=much is not a whole number",
    "layers rank=8,10x": "rank=10x is not of a single layer: use a size such as 8, reference, half or full",
    "layers rank=vbmf": "rank=vbmf is not of a single layer",
    "layers method=cp,cq": "unknown format 'cq', known: btt, cp,",
    "layers layers=alexnet.*": "layers=alexnet.* fits none of vgg16.conv1_2,",
    "layers precision=fp16": "unknown precision 'fp16', known: auto, fp32, bf16",
    "layers device=tpu": "unknown device 'tpu', known: auto, cpu, cuda",
    "layers plan=best layers=lenet.conv2": "unknown plan 'best'",
    "layers repeats=0": "repeats=0 is not a whole number of at least 1",
    "layers allow_larger=perhaps": "allow_larger=perhaps is not true or false",
    "step layout=rows": "unknown layout 'rows', known: channels, matrix,",
    "step threads=two": "threads=two is not a whole number of at least 1",
    "step width=0": "width=0 is not a number greater than 0",
    "step arch=resnet": "unknown arch 'resnet'",
    "step dataset=svhn": "unknown dataset 'svhn'",
    "loop dataset=svhn": "unknown dataset 'svhn'",
    "loop limit=none": "limit=none is not a whole number of at least 1",
    "loop method=cq": "unknown format 'cq'",
    "loop dataset=image_folder": "needs dataset.root=DIR",
    "step parameters=cp": "parameters=cp is not METHOD:RANK, for example",
    "step parameters=cp:8 rank=4": "parameters=cp:8 gives every method its size: leave rank= out",
    "step parameters=cq:8": "unknown format 'cq'",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_options_get_one_line(bench, tmp_path, line):
    code, _, err, _ = bench(line)
    assert code == 2
    assert err.startswith("tdc: ") and err.count("\n") == 1 and BAD[line] in err
    assert not any(tmp_path.iterdir())


def test_options_take_their_types():
    options = read(["method=cp,tt", "rank=8,full", "threads=2", "layers=lenet.*"], LayerOptions)
    assert (options.method, options.rank, options.threads) == (("cp", "tt"), ("8", "full"), 2)
    assert options.layers == ("lenet.*",) and options.precision == "auto"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_methods_are_those_that_have_the_layout(layout):
    assert list(methods(StepOptions(), layout)) == [name for name in FACTORISED if (name, layout) in WAYS]
    assert methods(StepOptions(method=("tt",)), layout) == ("tt",)
    assert list(methods(StepOptions())) == FACTORISED
