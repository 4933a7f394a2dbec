"""``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` whose weights are held as cores.

Input-to-hidden weights are applied to the whole sequence in one call, hidden-to-hidden ones (and an LSTM's projections)
to one step after the other. Or torch's fused kernel computes all steps in one call on weights that are put together
once a pass, which takes more multiplications and much fewer calls: whichever takes less time by the cost model. The
kernel is given inputs that are contracted with all but the last core of their weight, where that is fastest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import _VF, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...tensor.contraction.path import Path
from ...tensor.contraction.search import whole_paths
from ..base import Factorised, Planner
from ..kept import infers
from ..linear import FactorisedLinear, StepLinear, prepared
from .base import Hold, Parted, plus
from .cells import CELLS, KERNEL, LAYERS, STEPS, States, cheapest, geometry, once

_KERNELS: dict[str, Callable[..., Any]] = {
    "LSTM": _VF.lstm,
    "GRU": _VF.gru,
    "RNN_TANH": _VF.rnn_tanh,
    "RNN_RELU": _VF.rnn_relu,
}


class PartedRecurrent(Parted, nn.RNNBase):
    """A recurrent layer of torch's with a child for each of its weights; inputs and outputs are torch's in every form.

    The choice between the kernel and steps is made for the inputs that the children are planned for, apart for training
    and for inference without gradients, where putting weights together costs nothing.
    """

    @classmethod
    def weights(cls, layer: nn.Module) -> dict[str, type[nn.Linear]]:
        assert isinstance(layer, nn.RNNBase)
        names = (name for name in layer._flat_weights_names if name.startswith("weight"))
        return {name: nn.Linear if name.startswith("weight_ih") else StepLinear for name in names}

    def parted(self) -> None:
        del vars(self)["_flat_weights"]
        self._flat_weight_refs, self._planned = [], list[Any]()
        self._training_pass = self._inferring_pass = STEPS

    def joined(self, layer: nn.Module) -> None:
        assert isinstance(layer, nn.RNNBase)
        del vars(layer)["_planned"], vars(layer)["_training_pass"], vars(layer)["_inferring_pass"]
        vars(layer)["_flat_weights"] = [None] * len(layer._flat_weights_names)

    def together(self, hold: Hold) -> nn.Module:
        layer = super().together(hold)
        assert isinstance(layer, nn.RNNBase)
        layer._init_flat_weights()
        return layer

    # What torch checks the type of, and what it does to know whether its weights are still the same.

    @property
    def _flat_weights(self) -> list[Tensor | None]:  # type: ignore[override]
        return list(self.parameters())

    def reset_parameters(self) -> None:
        """See ``nn.RNNBase``."""
        self.begin_again("reset_parameters")

    def _init_flat_weights(self) -> None:
        pass

    def _update_flat_weights(self) -> None:
        pass

    def flatten_parameters(self) -> None:
        """Nothing: what the kernel takes is made anew for every pass."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)
        self._flat_weight_refs = []

    def _replicate_for_data_parallel(self) -> nn.Module:
        return nn.Module._replicate_for_data_parallel(self)

    # By the kernel, or step by step.

    def way(self, training: bool) -> str:
        """How passes are computed, ``STEPS``, ``LAYERS`` or ``KERNEL``: those that train, or those that only infer."""
        self.settle()
        return self._training_pass if training else self._inferring_pass

    def settle(self) -> None:
        """Choose again where a child has new plans, as it has with other ranks."""
        held = self._held()
        planned = [layer.candidates for layer in held.values()]
        if len(planned) != len(self._planned) or any(a is not b for a, b in zip(planned, self._planned, strict=True)):
            self._choose(held)

    def _held(self) -> dict[str, Factorised]:
        return {name: part for name, part in self.parts().items() if isinstance(part, Factorised)}

    def _choose(self, held: dict[str, Factorised]) -> None:
        """Take what takes least time by the cost model; in the kernel, plans are of weights put together."""
        best = {name: part.planner(part) for name, part in held.items()}
        training, inferring = [paths[0] for paths in best.values()], [_inferring(part) for part in held.values()]
        self._training_pass = cheapest(self, held, training, merging=True)
        self._inferring_pass = cheapest(self, held, inferring, merging=False)
        for name, part in held.items():
            whole = self._training_pass == KERNEL or (self._training_pass == LAYERS and not once(name))
            candidates = whole_paths(part.graph, geometry(part), part.planner.rates) if whole else best[name]
            if candidates != part.candidates:
                part.candidates = candidates
                part.use(candidates[0])
        self._planned = [part.candidates for part in held.values()]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's: ``input`` with or without batch, or packed; ``hx``: the first states."""
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            states = self._states(data, sizes, int(sizes[0]), hx, order)
            data, states = self._run(data, sizes.tolist(), states)
            return PackedSequence(data, sizes, order, back), self._given_back(states, back)
        x = input
        if x.dim() not in (2, 3):
            raise ValueError(f"{type(self).whole.__name__}: Expected input to be 2D or 3D, got {x.dim()}D instead")
        batched, axis = x.dim() == 3, 0 if self.batch_first else 1
        if not batched:
            x = x.unsqueeze(axis)
            if hx is not None:
                hx = hx.unsqueeze(1) if isinstance(hx, Tensor) else tuple(s.unsqueeze(1) for s in hx)
        states = self._states(x, None, x.shape[axis], hx, None)
        x = x.transpose(0, 1) if self.batch_first else x
        steps, batch = x.shape[:2]
        if not steps:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        data, states = self._run(x.reshape(steps * batch, x.shape[2]), [batch] * steps, states)
        x = data.view(steps, batch, data.shape[1])
        x = x.transpose(0, 1) if self.batch_first else x
        if not batched:
            return x.squeeze(axis), self._given_back([state.squeeze(1) for state in states], None)
        return x, self._given_back(states, None)

    def _states(self, x: Tensor, sizes: Tensor | None, batch: int, hx: Any, order: Tensor | None) -> States:
        """The first states, ``(layers * directions, b, hidden)`` each: zeros, or those given; checked as torch does."""
        self.check_input(x, sizes)
        if hx is None:
            count = self.num_layers * (2 if self.bidirectional else 1)
            widths = (self.proj_size or self.hidden_size, self.hidden_size)[: CELLS[self.mode].states]
            return tuple(x.new_zeros(count, batch, width) for width in widths)
        self.check_forward_args(x, hx, sizes)
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        return states if order is None else tuple(state.index_select(1, order) for state in states)

    def _given_back(self, states: Sequence[Tensor], back: Tensor | None) -> Any:
        found = tuple(state if back is None else state.index_select(1, back) for state in states)
        return found if CELLS[self.mode].states > 1 else found[0]

    def _run(self, data: Tensor, sizes: list[int], first: States) -> tuple[Tensor, States]:
        """All layers over steps of ``sizes`` sequences, packed as ``(sum(sizes), features)``; ``first``: their states.

        Gives the outputs, packed too, and the last states.
        """
        way = STEPS if self.watched() else self.way(self.training or not infers(data))
        if way == KERNEL:
            return self._kernel(self._flat_weights_names, data, sizes, first, {})
        directions = 2 if self.bidirectional else 1
        last: list[States] = []
        for layer in range(self.num_layers):
            before = tuple(state[layer * directions : (layer + 1) * directions] for state in first)
            data, after = (self._stepped if way == STEPS else self._contracted)(layer, data, sizes, before)
            last.append(after)
            if self.dropout and self.training and layer + 1 < self.num_layers:
                data = F.dropout(data, self.dropout)
        return data, tuple(torch.cat(states) for states in zip(*last, strict=True))

    def _kernel(
        self,
        names: Sequence[str],
        data: Tensor,
        sizes: list[int],
        states: States,
        weights: dict[str, Tensor],
        both: bool | None = None,
    ) -> tuple[Tensor, States]:
        """The layers whose parameters these are by one call; ``weights``: what it is given in place of some.

        ``both``: in both directions, by default as the layer is.
        """
        flat = [weights[name] if name in weights else getattr(self, name) for name in names]
        both = self.bidirectional if both is None else both
        layers = states[0].shape[0] // (2 if both else 1)
        settings = (flat, self.bias, layers, self.dropout, self.training, both)
        given: Any = states if len(states) > 1 else states[0]
        if sizes[0] == sizes[-1]:
            x = data.reshape(len(sizes), sizes[0], data.shape[1])
            output, *after = _KERNELS[self.mode](x, given, *settings, False)
        else:
            output, *after = _KERNELS[self.mode](data, torch.tensor(sizes, device="cpu"), given, *settings)
        return output.reshape(data.shape[0], output.shape[-1]), tuple(after)

    def _contracted(self, layer: int, data: Tensor, sizes: list[int], states: States) -> tuple[Tensor, States]:
        """One layer by the kernel, on inputs that are contracted with all but the last core of their weight.

        Two directions have cores of their own, hence inputs of their own, and are computed one after the other.
        """
        count = len(self._flat_weights_names) // self.num_layers
        names = self._flat_weights_names[layer * count : (layer + 1) * count]
        products = {name: _before_product(self.part(name), data) for name in names if once(name)}
        if all(rows is data for rows, _ in products.values()):
            return self._kernel(names, data, sizes, states, {name: weight for name, (_, weight) in products.items()})
        outputs, last, own = [], [], count // len(products)
        for place, (name, (rows, weight)) in enumerate(products.items()):
            before = tuple(state[place : place + 1] for state in states)
            rows = _from_end(rows, sizes) if place else rows
            output, after = self._kernel(names[place * own :][:own], rows, sizes, before, {name: weight}, both=False)
            outputs.append(_from_end(output, sizes) if place else output)
            last.append(after)
        return torch.cat(outputs, 1), tuple(torch.cat(states) for states in zip(*last, strict=True))

    def _stepped(self, layer: int, data: Tensor, sizes: list[int], states: States) -> tuple[Tensor, States]:
        """One layer step by step."""
        outputs, last = [], []
        for place, direction in enumerate(("", "_reverse") if self.bidirectional else ("",)):
            before = tuple(state[place] for state in states)
            output, after = self._direction(data, sizes, f"l{layer}{direction}", before, bool(direction))
            outputs.append(output)
            last.append(after)
        return torch.cat(outputs, 1), tuple(torch.stack(states) for states in zip(*last, strict=True))

    def _direction(
        self, data: Tensor, sizes: list[int], suffix: str, states: States, reverse: bool
    ) -> tuple[Tensor, States]:
        """One layer in one direction step by step; a sequence that has ended, or not begun, keeps its states."""
        step = CELLS[self.mode].step
        given = plus(self.part(f"weight_ih_{suffix}")(data), getattr(self, f"bias_ih_{suffix}", None))
        hidden, bias = prepared(self.part(f"weight_hh_{suffix}")), getattr(self, f"bias_hh_{suffix}", None)
        project = prepared(self.part(f"weight_hr_{suffix}")) if self.proj_size else None
        outputs = []
        steps = list(zip(given.split(sizes), sizes, strict=True))
        for now, count in reversed(steps) if reverse else steps:
            there = tuple(state[:count] if count < state.shape[0] else state for state in states)
            new = step(now, plus(hidden(there[0]), bias), there)
            if project is not None:
                new = (project(new[0]), *new[1:])
            outputs.append(new[0])
            states = tuple(
                torch.cat((state, old[count:])) if count < old.shape[0] else state
                for state, old in zip(new, states, strict=True)
            )
        return torch.cat(outputs[::-1] if reverse else outputs), states


class PartedLSTM(PartedRecurrent, nn.LSTM):
    """``nn.LSTM``, also with projections."""

    whole = nn.LSTM


class PartedGRU(PartedRecurrent, nn.GRU):
    """``nn.GRU``."""

    whole = nn.GRU


class PartedRNN(PartedRecurrent, nn.RNN):
    """``nn.RNN`` with tanh or relu."""

    whole = nn.RNN


def _inferring(part: Factorised) -> Path:
    """The path along which a child contracts where merging costs nothing."""
    planner = part.planner
    return Planner(planner.input_shape, planner.batch_size, planner.rates, planner.plan, math.inf)(part)[0]


def _before_product(part: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """See ``FactorisedLinear.before_product``; a dense weight is the matrix."""
    return part.before_product(x) if isinstance(part, FactorisedLinear) else (x, cast(nn.Linear, part).weight)


def _from_end(data: Tensor, sizes: list[int]) -> Tensor:
    """Packed sequences, each from its end to its start."""
    if sizes[0] == sizes[-1]:
        return data.view(len(sizes), sizes[0], data.shape[1]).flip(0).view(data.shape)
    counts = torch.tensor(sizes, device="cpu")
    starts, lengths = counts.cumsum(0) - counts, (counts[:, None] > torch.arange(sizes[0], device="cpu")).sum(0)
    steps = torch.arange(len(sizes), device="cpu").repeat_interleave(counts)
    sequence = torch.arange(len(steps), device="cpu") - starts[steps]
    return data[(starts[lengths[sequence] - 1 - steps] + sequence).to(data.device)]
