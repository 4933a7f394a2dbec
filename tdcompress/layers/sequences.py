"""``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` whose weights are held as cores.

Input-to-hidden weights are applied to the whole sequence in one call, hidden-to-hidden ones (and an LSTM's projections)
to one step after the other. Or torch's fused kernel runs on weights that are put together once a pass, which takes more
multiplications and much fewer calls: whichever takes less time by the cost model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..tensor.contraction.cost import Rates
from ..tensor.contraction.path import Path
from ..tensor.contraction.plan import compile_tree
from ..tensor.contraction.search import merge_tree, whole_paths
from .base import Factorised, Planner
from .kept import infers
from .linear import StepLinear, prepared
from .parted import Hold, Parted, plus
from .recurrent import CELLS, States

_NEVER_WHOLE = ("contract", "chain")
"""Plans that put no weight together."""
_STEP_CALLS = 12  # of a cell that is computed step by step, beside its products: those of an LSTM


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
        self._fuses_inferring = False

    def joined(self, layer: nn.Module) -> None:
        assert isinstance(layer, nn.RNNBase)
        del vars(layer)["_planned"], vars(layer)["_fuses_inferring"]
        vars(layer)["_flat_weights"] = [None] * len(layer._flat_weights_names)

    def together(self, hold: Hold) -> nn.Module:
        layer = super().together(hold)
        assert isinstance(layer, nn.RNNBase)
        layer._init_flat_weights()
        return layer

    # What torch's forward reads, and what it keeps to know whether its weights are still the same.

    @property
    def _flat_weights(self) -> list[Tensor | None]:  # type: ignore[override]
        return [getattr(self, name) for name in self._flat_weights_names]

    def _init_flat_weights(self) -> None:
        pass

    def _update_flat_weights(self) -> None:
        pass

    def flatten_parameters(self) -> None:
        """Nothing: what the fused kernel takes is made anew for every pass."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)
        self._flat_weight_refs = []

    def _replicate_for_data_parallel(self) -> nn.Module:
        return nn.Module._replicate_for_data_parallel(self)

    # Fused, or step by step.

    def fused(self, training: bool) -> bool:
        """Whether the fused kernel is what passes take: those that train, or those that only infer."""
        self.settle()
        held = self._held()
        return all(len(layer.plan.path.terms) == 1 for layer in held) if training else self._fuses_inferring

    def settle(self) -> None:
        """Choose again where a child has new plans, as it has with other ranks."""
        held = self._held()
        planned = [layer.candidates for layer in held]
        if len(planned) != len(self._planned) or any(a is not b for a, b in zip(planned, self._planned, strict=True)):
            self._choose(held)

    def _held(self) -> list[Factorised]:
        return [part for part in self.parts().values() if isinstance(part, Factorised)]

    def _choose(self, held: Sequence[Factorised]) -> None:
        """Fuse where that takes less time by the cost model: then every plan puts its weight together."""
        planner = held[0].planner
        batch, rates = planner.batch_size, planner.rates
        # An input-to-hidden weight is given all steps at once, the others are used once a step.
        steps = max(int(max(layer.planner.uses, layer.planner.input_shape[0])) for layer in held)
        calls = 3 * _STEP_CALLS * steps * rates.call * self.num_layers * (2 if self.bidirectional else 1)
        fuses = []
        for merging in (1, 0):  # while training weights are put together in every pass
            apart, whole = calls, 0.0
            for name, part in self.parts().items():
                times = 1 if name.startswith("weight_ih") else steps
                product = _product(part, batch * steps // times, rates)
                whole += times * (product - (3 * rates.call if times > 1 else 0))
                if isinstance(part, Factorised):
                    apart += times * (part.candidates[0] if merging else _inferring(part)).seconds
                    whole += merging * compile_tree(part.graph, merge_tree(part.graph)).seconds(rates)
                else:
                    apart += times * product
            fuses.append(all(layer.planner.plan not in _NEVER_WHOLE for layer in held) and whole < apart)
        if fuses[0]:
            for layer in held:
                geometry = layer.geometry(batch, layer.planner.input_shape)
                layer.candidates = whole_paths(layer.graph, geometry, rates)
                layer.use(layer.candidates[0])
        self._fuses_inferring, self._planned = fuses[1], [layer.candidates for layer in held]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's: ``input`` with or without batch, or packed; ``hx``: the first states."""
        x = input.data if isinstance(input, PackedSequence) else input
        training = self.training or not infers(x)
        if self.fused(training) and not self.watched():
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            states = self._states(data, sizes, int(sizes[0]), hx, order)
            data, states = self._run(data, sizes.tolist(), states)
            return PackedSequence(data, sizes, order, back), self._given_back(states, back)
        if x.dim() not in (2, 3):
            raise ValueError(f"{type(self).whole.__name__}: Expected input to be 2D or 3D, got {x.dim()}D instead")
        batched, axis = x.dim() == 3, 0 if self.batch_first else 1
        if not batched:
            x = x.unsqueeze(axis)
            if hx is not None:
                hx = tuple(s.unsqueeze(1) for s in hx) if isinstance(hx, tuple) else hx.unsqueeze(1)
        states = self._states(x, None, x.shape[axis], hx, None)
        x = x.transpose(0, 1) if self.batch_first else x
        steps, batch = x.shape[:2]
        data, states = self._run(x.reshape(steps * batch, x.shape[2]), [batch] * steps, states)
        x = data.view(steps, batch, data.shape[1])
        x = x.transpose(0, 1) if self.batch_first else x
        if not batched:
            return x.squeeze(axis), self._given_back([state.squeeze(1) for state in states], None)
        return x, self._given_back(states, None)

    def _states(self, x: Tensor, sizes: Tensor | None, batch: int, hx: Any, order: Tensor | None) -> States:
        """The first states, ``(layers * directions, b, hidden)`` each: zeros, or those given, checked as torch does."""
        if hx is None:
            count = self.num_layers * (2 if self.bidirectional else 1)
            widths = (self.proj_size or self.hidden_size, self.hidden_size)[: CELLS[self.mode].states]
            return tuple(x.new_zeros(count, batch, width) for width in widths)
        self.check_forward_args(x, hx, sizes)
        states = hx if isinstance(hx, tuple) else (hx,)
        return states if order is None else tuple(state.index_select(1, order) for state in states)

    def _given_back(self, states: Sequence[Tensor], back: Tensor | None) -> Any:
        found = tuple(state if back is None else state.index_select(1, back) for state in states)
        return found if CELLS[self.mode].states > 1 else found[0]

    def _run(self, data: Tensor, sizes: list[int], first: States) -> tuple[Tensor, States]:
        """All layers over steps of ``sizes`` sequences, packed as ``(sum(sizes), features)``; ``first``: their states.

        Gives the outputs, packed too, and the last states.
        """
        directions = ("", "_reverse") if self.bidirectional else ("",)
        last: list[States] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in directions:
                before = tuple(state[len(last)] for state in first)
                output, after = self._direction(data, sizes, f"l{layer}{direction}", before, bool(direction))
                outputs.append(output)
                last.append(after)
            data = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
            if self.dropout and self.training and layer + 1 < self.num_layers:
                data = F.dropout(data, self.dropout)
        return data, tuple(torch.stack(states) for states in zip(*last, strict=True))

    def _direction(
        self, data: Tensor, sizes: list[int], suffix: str, states: States, reverse: bool
    ) -> tuple[Tensor, States]:
        """One layer in one direction; a sequence that has ended, or not begun, keeps its states."""
        step = CELLS[self.mode].step
        given = plus(self.part(f"weight_ih_{suffix}")(data), self._parameters.get(f"bias_ih_{suffix}"))
        hidden, bias = prepared(self.part(f"weight_hh_{suffix}")), self._parameters.get(f"bias_hh_{suffix}")
        project = prepared(self.part(f"weight_hr_{suffix}")) if self.proj_size else None
        outputs = []
        steps = list(zip(given.split(sizes), sizes, strict=True))
        for now, count in reversed(steps) if reverse else steps:
            there = tuple(state[:count] if count < len(state) else state for state in states)
            new = step(now, plus(hidden(there[0]), bias), there)
            if project is not None:
                new = (project(new[0]), *new[1:])
            outputs.append(new[0])
            states = tuple(
                torch.cat((state, old[count:])) if count < len(old) else state
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


def _product(part: nn.Module, rows: int, rates: Rates) -> float:
    """Seconds of the product with the dense weight of a child."""
    new, summed = part.weight_shape if isinstance(part, Factorised) else cast(nn.Linear, part).weight.shape
    return rates.contraction(rows, 1, summed, new, 1, (rows * summed, summed * new, rows * new))
