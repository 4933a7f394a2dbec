"""Initial cores: the variance that they give the weight, and how they are conditioned."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, SHAPES, Case, einsum_dense

from tdcompress.tensor.fitting.initial import FITTED, INITS, OF_TRAINED, orthogonal, spectral
from tdcompress.tensor.formats import FORMATS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("init", sorted(set(INITS) - set(OF_TRAINED)))  # which loses what truncation takes
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_variance_law(format: str, init: str):
    graph = Case(format, "split", "merged", "conv").graph()
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    weights = [0.1 * torch.randn(12, 8, 3, 2, generator=generator) for generator in generators]
    chance = [{"seed": 1} if init in FITTED else {"generator": generator} for generator in generators]
    draws = [INITS[init](graph, w, **drawn) for w, drawn in zip(weights, chance, strict=True)]
    for first, same, other in zip(*draws, strict=True):
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
    for weight, cores in zip(weights, draws, strict=True):
        assert einsum_dense(graph, cores).square().mean() == pytest.approx(float(weight.square().mean()), rel=1e-3)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_weight_of_zeros_starts_at_zero_and_learns(format: str, init: str):
    graph = Case(format, "split", "merged", "conv").graph()
    cores = [core.requires_grad_() for core in INITS[init](graph, torch.zeros(12, 8, 3, 2))]
    (einsum_dense(graph, cores) - 1).square().sum().backward()
    assert not einsum_dense(graph, cores).any()
    assert [bool(core.grad.any()) for core in cores] == [not core.any() for core in cores]


def test_spectral_cores_of_a_matrix_are_its_scaled_svd():
    graph = Case("tt", "matrix", "merged", "linear").graph(3)
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(weight)
    truncated = left[:, :3] * values[:3] @ right[:3]
    cores = spectral(graph, weight)
    torch.testing.assert_close(einsum_dense(graph, cores), truncated * weight.norm() / truncated.norm())
    for core, axis in zip(cores, (0, 1), strict=True):  # both sides hold sqrt(singular values)
        shares = core.square().sum(axis).sort(descending=True).values
        torch.testing.assert_close(shares, values[:3] * weight.norm() / truncated.norm(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("case", [c for c in CASES if c.format in ("tt", "tucker", "ht")], ids=str)
def test_orthogonal_cores_keep_the_spectrum_flat(case: Case):
    # Every core but the root is an isometry up to scale: contracted with itself over all indices but those towards the
    # root it is a multiple of the identity (or, where it is wider than high, over those alone).
    graph = case.graph()
    bonds = {core.name: {i for i in core.indices if i in graph.bonds} for core in graph.cores}
    root = max(bonds, key=lambda name: len(bonds[name]))
    way, border = {root: set()}, [root]  # of a tree: the bond by which each core was reached
    for here in border:
        for name in bonds.keys() - way.keys():
            if shared := bonds[here] & bonds[name]:
                way[name] = shared
                border.append(name)
    for core, value in zip(graph.cores, orthogonal(graph, torch.ones(SHAPES[case.kind])), strict=True):
        if core.name == root:
            continue
        (bond,) = way[core.name]
        matrix = value.double().movedim(core.indices.index(bond), -1).flatten(0, -2)
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype) * gram[0, 0], rtol=1e-5, atol=1e-5)
