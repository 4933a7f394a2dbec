"""A network's passes on CUDA, recorded once as graphs of kernels that are launched as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ..tensor.errors import ConfigError

Passes = Callable[[Tensor], Tensor]


def passes(
    model: nn.Module, batch_size: int, device: torch.device, cuda_graphs: bool, compiled: bool, whole: bool = True
) -> Passes:
    """``model`` as a training loop calls it: as it is, ``Recorded`` on CUDA, or compiled.

    ``compiled`` goes before ``cuda_graphs``: for each shape that it meets; on CUDA into graphs of kernels that are
    launched as one. ``whole``: a network that cannot be compiled without a break is an error, but for torch's recurrent
    layers, which break every compilation.
    """
    if compiled:
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        whole = whole and not any(isinstance(layer, nn.RNNBase) for layer in model.modules())
        ready: Passes = torch.compile(model, fullgraph=whole, dynamic=False, mode=mode)
        return ready
    return Recorded(model, batch_size) if cuda_graphs and device.type == "cuda" else model


class Recorded:
    """``model`` as a callable that records its forward and backward pass over a training batch, and replays them.

    A factorised layer is several short calls, which a GPU ends sooner than Python launches them: launched one by one,
    a network of fewer MACs takes longer than the dense one. Batches of another size than ``batch_size``, and all those
    in evaluation, run as usual. What is recorded reads the parameters where they lay at the first batch: after they
    are replaced by others, as when ranks change, a new ``Recorded`` is needed.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.replay: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if not (self.model.training and torch.is_grad_enabled() and len(images) == self.batch_size):
            output: Tensor = self.model(images)
            return output
        if self.replay is None:
            self.replay = self._recorded(images)
        return self.replay(images)

    def _recorded(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """The recorded passes, as a function from images like ``images`` to the network's output.

        Recording runs a few passes first; buffers and the random state are put back afterwards. Raises ``ConfigError``
        for a network that waits for the device on the way, which no recording can.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        random, cached = torch.cuda.get_rng_state(images.device), torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)  # a graph has to cast each weight anew
        # The parameters' gradients stay on the stream of the recording, for which the engine waits.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        try:
            replay = torch.cuda.make_graphed_callables(_Pass(self.model), (images.clone(),), allow_unused_input=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ConfigError(f"this network's passes cannot be recorded ({reason}): use cuda_graphs=false") from error
        finally:
            torch.set_autocast_cache_enabled(cached)
        for buffer, value in buffers:
            buffer.copy_(value)
        torch.cuda.set_rng_state(random, images.device)
        return cast(Callable[[Tensor], Tensor], replay)


class _Pass(nn.Module):
    """A wrapper whose ``forward`` torch may replace by the recording; ``model``'s own is kept for other batches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.model(images)
        return output
