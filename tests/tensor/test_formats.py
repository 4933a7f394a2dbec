"""The formats' cores, against einsum, formulas written out by hand, and tensorly."""

from __future__ import annotations

import math
import pkgutil

import numpy as np
import pytest
import tensorly as tl
import torch
from cases import ALL, CASES, FACTORISED, IN, OUT, TAPS, Case, assert_close, einsum_dense, having, random_cores
from torch import nn

from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig
from tdcompress.layers.conv import FactorisedConv
from tdcompress.models import build as archs
from tdcompress.tensor import formats
from tdcompress.tensor.contraction.plan import merge_all
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.graph import Core, validate
from tdcompress.tensor.layout import LAYOUTS

pytestmark = pytest.mark.usefixtures("one_thread")

HEIGHT, WIDTH = TAPS


def test_a_file_a_format():
    assert set(FORMATS) == {module.name for module in pkgutil.iter_modules(formats.__path__)}
    assert set(FORMATS) >= {"cp", "dense", "ht", "tr", "tt", "tucker"}


@pytest.mark.parametrize("case", ALL, ids=str)
def test_to_dense_is_the_einsum_over_all_cores(case: Case):
    graph = case.graph()
    cores = random_cores(graph)
    assert_close(merge_all(graph, cores), einsum_dense(graph, cores))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_weight_is_reshaped_as_torch_has_it(case: Case):
    layer = case.layer()
    weight = layer.to_dense()
    assert weight.shape == case.twin().weight.shape
    # Output modes, then input modes, then the kernel's: row major over the factors of a split channel count.
    assert [mode[0] for mode in layer.graph.modes] == sorted((m[0] for m in layer.graph.modes), key="oik".index)
    assert_close(weight.flatten(), einsum_dense(layer.graph, layer.tensors()).flatten())


def conv(format: str, layout: str, kernel: str, rank: int = 3) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Double cores in order, and the weight (OUT, IN, HEIGHT, WIDTH), of a compressed convolution."""
    layer = Case(format, layout, kernel, "conv").layer(rank)
    return [core.detach() for core in layer.tensors()], layer.to_dense().detach()


def linear(format: str, layout: str, rank: int = 3) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The same of a linear layer, (OUT, IN)."""
    layer = Case(format, layout, "merged", "linear").layer(rank)
    return [core.detach() for core in layer.tensors()], layer.to_dense().detach()


# Hierarchical Tucker written out: every node of the balanced tree over the sites after its two children.
HT = {
    ("channels", "merged"): "ia,yxb,abe,of,ef->oiyx",
    ("channels", "separate"): "ia,yb,abe,xc,od,cdf,ef->oiyx",
    ("channels", "open"): "ia,ob,ayxb->oiyx",
    ("matrix", "merged"): "iyxa,ob,ab->oiyx",
    ("split", "merged"): "ia,jb,abc,yxd,cde,of,pg,fgh,eh->opijyx",
    ("split", "separate"): "ia,jb,abc,yd,cde,xk,of,kfg,pl,glh,eh->opijyx",
    ("split", "open"): "ia,jb,abe,of,pg,fgh,eyxh->opijyx",
    ("paired", "merged"): "ioa,jpb,abe,yxf,ef->opijyx",
    ("paired", "open"): "ioa,jpb,ayxb->opijyx",
}


@pytest.mark.parametrize(("layout", "kernel"), HT, ids="-".join)
def test_ht_against_one_written_out_einsum(layout: str, kernel: str):
    graph = Case("ht", layout, kernel, "conv").graph()
    cores = random_cores(graph)
    assert_close(merge_all(graph, cores), torch.einsum(HT[layout, kernel], *cores))


def test_ht_linear_split():
    cores, weight = linear("ht", "split")
    assert_close(weight, torch.einsum("ia,jb,abe,of,pg,fgh,eh->opij", *cores).reshape(OUT, IN))


def test_cp_against_tensorly():
    (i, y, x, o), weight = conv("cp", "channels", "separate")
    assert_close(weight, torch.from_numpy(tl.cp_to_tensor((None, [c.numpy() for c in (o, i, y, x)]))))
    (i, k, o), weight = conv("cp", "channels", "merged")
    found = tl.cp_to_tensor((None, [o.numpy(), i.numpy(), k.reshape(HEIGHT * WIDTH, -1).numpy()]))
    assert_close(weight, torch.from_numpy(found).reshape(OUT, IN, *TAPS))


def test_tucker_against_tensorly():
    (i, y, x, o, core), weight = conv("tucker", "channels", "separate")
    factors = [factor.numpy() for factor in (i, y, x, o)]
    assert_close(weight, torch.from_numpy(tl.tucker_to_tensor((core.numpy(), factors))).permute(3, 0, 1, 2))
    (i, o, core), weight = conv("tucker", "channels", "open")  # Tucker-2: (r_i, r_o, kh, kw)
    factors = [i.numpy(), o.numpy(), np.eye(HEIGHT), np.eye(WIDTH)]
    assert_close(weight, torch.from_numpy(tl.tucker_to_tensor((core.numpy(), factors))).permute(1, 0, 2, 3))


def test_tt_against_tensorly():
    cores, weight = conv("tt", "split", "merged")  # i1 | i2 | kh kw | o1 | o2
    chain = [core.numpy() for core in cores]
    chain[0], chain[-1] = chain[0][None], chain[-1][..., None]
    chain[2] = chain[2].reshape(chain[2].shape[0], HEIGHT * WIDTH, -1)
    found = torch.from_numpy(tl.tt_to_tensor(chain))  # (2, 4, 6, 3, 4)
    assert_close(weight, found.permute(3, 4, 0, 1, 2).reshape(OUT, IN, *TAPS))


def test_tt_matrix_against_tensorly():
    cores, weight = linear("tt", "paired")  # (i1, o1, r1) (r1, i2, o2): tensorly's is (r, row, column, r)
    first, last = cores[0].permute(1, 0, 2)[None], cores[1].permute(0, 2, 1)[..., None]
    found = tl.tt_matrix_to_matrix([first.contiguous().numpy(), last.contiguous().numpy()])
    assert_close(weight, torch.from_numpy(found))


def test_tr_against_tensorly():
    cores, weight = linear("tr", "split")
    found = torch.from_numpy(tl.tr_to_tensor([core.numpy() for core in cores]))  # (i1, i2, o1, o2)
    assert_close(weight, found.permute(2, 3, 0, 1).reshape(OUT, IN))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rank", [1, 6])
def test_the_weight_starts_as_large_as_its_dense_twin(case: Case, rank: int):
    torch.manual_seed(rank)
    twin = case.twin()
    ratio = case.layer(rank, twin=twin).to_dense().square().mean() / twin.weight.double().square().mean()
    assert 0.9 < ratio < 1.1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_cores_share_the_scale(case: Case):
    torch.manual_seed(0)
    twin = nn.Conv2d(48, 48, 3) if case.kind == "conv" else nn.Linear(48, 48)
    norms = [core.detach().norm().item() for core in case.layer(6, twin=twin).tensors()]
    assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-5)


def last_convolution_std(model: nn.Module, x: torch.Tensor) -> float:
    """The standard deviation of what the last of VGG-16's 13 convolutions puts out."""
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | FactorisedConv)]
    assert len(convolutions) == 13
    found: list[float] = []
    hook = convolutions[-1].register_forward_hook(lambda layer, args, out: found.append(float(out.std())))
    with torch.no_grad():
        model(x)
    hook.remove()
    return found[0]


STARTS = [(format, None, init) for format in FACTORISED for init in ("orthogonal", "spectral")]


@pytest.mark.parametrize(("format", "layout", "init"), [*STARTS, *((*way, "orthogonal") for way in having("channels"))])
def test_activations_keep_their_scale_through_vgg16(format: str, layout: str | None, init: str):
    # Before training, batch norm in evaluation mode passes its input on: nothing but the weights holds the scale.
    logarithm, seeds = 0.0, 2 if init == "spectral" else 4
    for seed in range(seeds):
        torch.manual_seed(seed)
        config = ArchConfig(name="vgg16", width=0.125 if init == "spectral" else 0.25)
        x, model = torch.randn(2, 3, 32, 32), archs.build(config, 3, 10, 32).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        before = last_convolution_std(model, x)
        larger = FORMATS[format].factors_by_budget  # without a budget they are even, and most layers stay dense
        compress(model, format, 16, (3, 32, 32), layout=layout, plan="dense", init=init, allow_larger=larger)
        logarithm += math.log(last_convolution_std(model, x) / before) / seeds
    assert 0.5 < math.exp(logarithm) < 2  # the geometric mean over the seeds


def test_default_layouts_are_known():
    assert {format.layout for format in FORMATS.values()} <= set(LAYOUTS)


@pytest.mark.parametrize(
    ("cores", "said"),
    [
        ([Core("a", ("i", "r")), Core("a", ("o", "r"))], "names repeat"),
        ([Core("a", ("i", "r")), Core("b", ("r",))], "mode o"),
        ([Core("a", ("i", "o", "r")), Core("b", ("r", "s")), Core("c", ("o", "s"))], "mode o"),
        ([Core("a", ("i", "r")), Core("b", ("o",))], "single core"),
    ],
)
def test_a_wrong_topology_is_refused(cores: list[Core], said: str):
    with pytest.raises(ValueError, match=said):
        validate(cores, ("o", "i"))
