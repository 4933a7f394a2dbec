"""What a contraction costs on a device, in seconds, from a few measured rates."""

from __future__ import annotations

from dataclasses import dataclass


def kind(group: int, summed: int, new: int, taps: int, axes: int) -> str:
    """The field of ``Rates`` for the call that a contraction of these sizes becomes, see ``Rates.contraction``."""
    if axes:
        if group > 1 and summed == new == 1:
            return "depthwise_3d" if axes == 3 else "depthwise"
        if group > 1:
            return "grouped"
        return "convolution" if taps > 1 else "pointwise"
    return "batched" if group > 1 and summed > 1 else "product"


@dataclass(frozen=True)
class Rates:
    """A device at work in one number format.

    Multiply-accumulates per second in each kind of call: ``convolution`` by a kernel of several taps, ``pointwise``
    (1x1), ``grouped`` and ``depthwise`` convolutions of any kernel, the last apart along three axes, for which there
    are few fast kernels; ``product`` with one matrix, or without a sum; ``batched`` products. ``memory``: bytes per
    second that a call reads and writes; ``call``: seconds that any call takes; ``lanes``: output channels that one
    vector instruction computes, of which fewer leave lanes idle; ``width``: bytes of a number.
    """

    convolution: float = 2e11
    pointwise: float = 2e11
    grouped: float = 2e11
    depthwise: float = 2e11
    depthwise_3d: float = 2e11
    product: float = 8e10
    batched: float = 8e10
    memory: float = 2e10
    call: float = 3e-5
    lanes: int = 16
    width: int = 4

    def contraction(
        self, rows: int, group: int, summed: int, new: int, taps: int, sizes: tuple[int, int, int], axes: int = 0
    ) -> float:
        """Seconds, forward and backward, of ``rows * group`` products of a ``(new, summed * taps)`` matrix.

        ``sizes``: entries of (left, right, result). Forward reads both and writes the result, which is kept for
        backward; that reads the result's gradient and both operands, and writes both gradients: three passes over each
        tensor. ``axes``: of the images where it runs as a convolution.
        """
        rate: float = getattr(self, kind(group, summed, new, taps, axes))
        macs = self.padded_macs(rows, group, summed, new, taps)
        return macs / rate + 3 * self.width * sum(sizes) / self.memory + 3 * self.call

    def padded_macs(self, rows: int, group: int, summed: int, new: int, taps: int) -> int:
        """Multiply-accumulates, forward and backward, of a contraction, those of idle lanes included."""
        if summed == new == 1:  # elementwise or depthwise: vectorised over the group
            return 3 * rows * self._padded(group) * taps
        forward = summed * self._padded(new)
        backward = new * self._padded(summed) + summed * self._padded(new)
        return rows * group * taps * (forward + backward)

    def copy(self, size: int) -> float:
        """Seconds of a permute that copies ``size`` entries, forward and backward: each reads and writes."""
        return 4 * self.width * size / self.memory + 2 * self.call

    def _padded(self, channels: int) -> int:
        return -(-channels // self.lanes) * self.lanes
