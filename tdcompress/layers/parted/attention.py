"""``nn.MultiheadAttention``, and the transformer layers on it, whose weights are held as cores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import _canonical_mask, _mha_shape_check, _none_or_dtype  # type: ignore[attr-defined]
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..base import Factorised
from .base import Hold, Parted, child_name, like, plus

_APART = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_WEIGHTS = ("in_proj_weight", *_APART)


class PartedAttention(Parted, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with a child for each of its weights; inputs, masks and outputs are torch's.

    Packed, the projections of queries, keys and values are one weight ``(3 E, E)``, which an input that is all three is
    multiplied with at once. Where queries are not keys they are three, see ``separate``. There is no fast path, which
    reads weights, nor in the transformer layers that call it: they ask for ``_qkv_same_embed_dim``.
    """

    whole = nn.MultiheadAttention

    @classmethod
    def weights(cls, layer: nn.Module) -> dict[str, type[nn.Linear]]:
        modules, parameters = layer._modules, layer._parameters
        return {name: nn.Linear for name in _WEIGHTS if parameters.get(name) is not None or child_name(name) in modules}

    _qkv_same_embed_dim: bool

    def parted(self) -> None:
        self._qkv_same_embed_dim = False

    def joined(self, layer: nn.Module) -> None:
        vars(layer)["_qkv_same_embed_dim"] = self.packed

    def together(self, hold: Hold) -> nn.Module:
        layer = super().together(hold)
        out = self.out_proj
        if isinstance(out, Factorised):
            plain = out.plain()
            plain.__class__ = NonDynamicallyQuantizableLinear  # torch's own class there, whose weight attention reads
            layer.out_proj = like(out, hold(plain, "weight", out))
            if out.bias is not None:
                layer.out_proj.bias.requires_grad_(out.bias.requires_grad)
        return layer

    def _reset_parameters(self) -> None:
        self.begin_again("_reset_parameters")

    @property
    def packed(self) -> bool:
        """Whether one weight projects queries, keys and values."""
        return "in_proj" in self._modules

    def separate(self) -> None:
        """Let three weights project queries, keys and values: the rows of the packed one, which is dense still."""
        packed = self._modules.pop("in_proj")
        assert isinstance(packed, nn.Linear)
        self._parameters["in_proj_weight"] = None
        for name, rows in zip(_APART, packed.weight.detach().chunk(3), strict=True):
            del self._parameters[name]
            self.add(name, nn.Linear, nn.Parameter(rows.clone(), packed.weight.requires_grad))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See ``nn.MultiheadAttention``."""
        if any(x.is_nested for x in (query, key, value)):
            raise TypeError("attention whose weights are held as cores takes no nested tensors: pad, and give a mask")
        batched = _mha_shape_check(query, key, value, key_padding_mask, attn_mask, self.num_heads)
        masks = self._masks(query, key_padding_mask, attn_mask, is_causal, need_weights)
        q, k, v = self._projected(query, key, value)
        # (b, steps, E), then (b, heads, steps, E / heads)
        if not batched:
            q, k, v = (x.unsqueeze(0) for x in (q, k, v))
        elif not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        self._refuse_shapes(q, k, v, *masks)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                torch.cat((x, b.expand(x.shape[0], 1, -1).to(x.dtype)), 1)
                for x, b in ((k, self.bias_k), (v, self.bias_v))
            )
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        q, k, v = (x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        mask = self._mask(*masks, q.shape[0], k.shape[2])
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q * math.sqrt(1 / self.head_dim) @ k.transpose(2, 3)
            weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, 3), dropout)
            x = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            x = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal and mask is None)
        x = self.out_proj(x.transpose(1, 2).flatten(2))
        if not batched:
            return x.squeeze(0), None if weights is None else weights.squeeze(0)
        return (x if self.batch_first else x.transpose(0, 1)), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, shaped as given."""
        bias = self.in_proj_bias
        if not self.packed:
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            parts = [self.part(name)(x) for name, x in zip(_APART, (query, key, value), strict=True)]
            q, k, v = (plus(x, b) for x, b in zip(parts, biases, strict=True))
            return q, k, v
        project = self.part("in_proj_weight")
        if isinstance(project, nn.Linear) and not (query is key and key is value):
            weights = project.weight.chunk(3)
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
            return q, k, v
        whole: dict[int, Tensor] = {}  # all three projections of each input
        for x in (query, key, value):
            if id(x) not in whole:
                whole[id(x)] = plus(project(x), bias)
        q, k, v = (whole[id(x)].chunk(3, -1)[third] for third, x in enumerate((query, key, value)))
        return q, k, v

    def _masks(
        self, query: Tensor, padding: Tensor | None, attention: Tensor | None, is_causal: bool, need_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """What is added to the scores: of keys ``([b,] steps)``, and of queries and keys; checked as torch does."""
        padding = _canonical_mask(padding, "key_padding_mask", _none_or_dtype(attention), "attn_mask", query.dtype)
        if is_causal and attention is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        if is_causal and padding is None and not need_weights:
            return None, None  # the kernel knows what is causal
        return padding, _canonical_mask(attention, "attn_mask", None, "", query.dtype, False)

    def _refuse_shapes(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None, attention: Tensor | None) -> None:
        """Raise ``RuntimeError`` where projections ``(b, steps, E)`` or masks do not go with each other.

        Some would be broadcast otherwise, or cut, where torch refuses them.
        """
        (batch, queries), keys = q.shape[:2], k.shape[1]
        if not k.shape[:2] == v.shape[:2] == (batch, keys):
            given = ", ".join(f"{tuple(x.shape[:2])}" for x in (q, k, v))
            raise RuntimeError(f"query, key and value are of {given} inputs and steps, which do not go together")
        alone = padding is not None and padding.dim() == 1
        for name, mask, shapes in (
            ("key_padding_mask", padding, [(keys,)] if alone else [(batch, keys)]),
            ("attn_mask", attention, [(queries, keys), (batch * self.num_heads, queries, keys)]),
        ):
            if mask is not None and tuple(mask.shape) not in shapes:
                raise RuntimeError(f"{name} is {tuple(mask.shape)}, not {' or '.join(map(str, shapes))}")

    def _mask(self, padding: Tensor | None, attention: Tensor | None, batch: int, keys: int) -> Tensor | None:
        """Both masks as one, to be added to ``(b, heads, queries, keys)``; keys that are the layer's own are open."""
        if padding is not None:
            padding = F.pad(padding, (0, keys - padding.shape[-1])).view(-1, 1, 1, keys)
        if attention is not None:
            attention = F.pad(attention, (0, keys - attention.shape[-1]))
            heads = 1 if attention.dim() == 2 else self.num_heads
            attention = attention.view(-1 if heads == 1 else batch, heads, *attention.shape[-2:])
        return padding if attention is None else attention if padding is None else attention + padding


def separate(model: nn.Module, calls: Mapping[str, int]) -> bool:
    """Let three weights project the inputs of attention whose queries are not keys; whether there is any.

    Cores of one weight would be applied as a whole to each of two inputs. One that other layers share is let be.
    ``calls``: how often layers were called, by name: a packed projection that is dense is not, where its rows are used
    apart.
    """
    owners = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    crossed = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, PartedAttention) and isinstance(packed := layer._modules.get("in_proj"), nn.Linear)
        if calls.get(f"{name}.in_proj".lstrip("."), 0) < calls.get(f"{name}.out_proj".lstrip("."), 0)
        if owners[id(packed.weight)] == 1
    ]
    for layer in crossed:
        layer.separate()
    return bool(crossed)


def separate_as(model: nn.Module, names: Collection[str]) -> None:
    """Let three weights project the inputs of attention of which ``names`` has one of three."""
    for name, layer in [*model.named_modules()]:
        apart = {f"{name}.{child_name(part)}".lstrip(".") for part in _APART}
        if isinstance(layer, PartedAttention) and layer.packed and apart & set(names):
            layer.separate()


def cut_into(model: nn.Module, name: str) -> list[str]:
    """The names of the layers that hold what the layer of this name held: its own, or what ``separate`` made of it."""
    owner, _, own = name.rpartition(".")
    above = model.get_submodule(owner) if own == "in_proj" else None
    if isinstance(above, PartedAttention) and not above.packed:
        return [f"{owner}.{child_name(part)}".lstrip(".") for part in _APART]
    return [name]


def call_layers(model: nn.Module) -> None:
    """Let torch's transformer layers that contain cores call their layers: their fast path reads weights instead."""
    for module in model.modules():
        if any(isinstance(layer, Factorised) for layer in module.modules()):
            if isinstance(module, nn.TransformerEncoderLayer):
                module.activation_relu_or_gelu = 0  # "neither": what the fast path knows
            elif isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False  # that path's alone
