"""What a network would become, as a terminal shows it."""

from __future__ import annotations

import pytest
from cases import FACTORISED

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ones_own_network_is_named_on_the_command_line(tdc):
    rest = "arch.keep=[] dataset=cifar10 dataset.image_size=64 method=tt rank=4"
    code, out, err = tdc(f"show 'arch.target={{_target_: torchvision.models.squeezenet1_1}}' {rest}")
    assert (code, err) == (0, "") and "features.12.expand3x3" in out
    assert tdc(f"show arch.target._target_=torchvision.models.squeezenet1_1 {rest}")[1] == out


def test_show_prints_the_layers_and_writes_nothing(tdc, tmp_path):
    code, out, err = tdc("show method=tucker arch=vgg16 dataset=cifar10 rank=reference")
    assert (code, err) == (0, "")
    assert "features.conv3_2" in out and "factor_i:1x1 > core:3x3 >" in out
    # All but the first convolution and the last linear layer at ceil(C/3).
    assert "2,822,178 parameters, dense 14,785,866: 5.24x smaller" in out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("method", FACTORISED)
def test_the_default_network_is_shown_at_ten_times_smaller(tdc, method):
    code, out, err = tdc(f"show method={method} rank=10x")
    assert code == 0 and "rank=10x: reached" in out, err


def test_networks_of_a_sweep_are_named_and_seeds_make_no_others(tdc):
    code, out, err = tdc("show -m method=tt,cp seed=0,1,2 rank=4 dataset=mnist arch=lenet")
    assert (code, err) == (0, "") and out.count("parameters, dense") == 2
    heads = [line for line in out.splitlines() if line.startswith("method=")]
    assert heads == ["method=tt rank=4 dataset=mnist arch=lenet", "method=cp rank=4 dataset=mnist arch=lenet"]
    assert not any(line.startswith("method=") for line in tdc("show method=tt rank=4")[1].splitlines())


@pytest.mark.parametrize("rank", ["vbmf", "energy:0.9"])
def test_ranks_of_weights_that_are_not_trained_yet_have_no_numbers(tdc, rank):
    code, out, _ = tdc(f"show method=tt rank={rank} full_rank_epochs=2 dataset=digits")
    line = "full_rank_epochs=2: dense for 2 of 10 epochs, then cores of ranks that follow from the weights"
    assert code == 0 and out == f"{line}, rank={rank}\n"
