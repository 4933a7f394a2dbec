"""What a contraction costs on a device, in seconds, from two rates: arithmetic and memory."""

from __future__ import annotations

from dataclasses import dataclass

LANES = 8  # output channels that one vector instruction computes; fewer leave lanes idle
BYTES = 4


@dataclass(frozen=True)
class Rates:
    """A device: multiply-accumulates per second, bytes per second, and the fixed time of one call in seconds."""

    arithmetic: float = 6e10
    memory: float = 1e10
    call: float = 1e-5

    def contraction(
        self, rows: int, group: int, summed: int, new: int, taps: int, sizes: tuple[int, int, int]
    ) -> float:
        """Seconds, forward and backward, of ``rows * group`` products of a ``(new, summed * taps)`` matrix.

        ``sizes``: entries of (left, right, result). Forward reads both and writes the result; backward reads the
        result's gradient and both operands, and writes both gradients: three passes over each tensor.
        """
        forward = summed * _padded(new)
        backward = new * _padded(summed) + summed * _padded(new)
        macs = rows * group * taps * (forward + backward)
        return macs / self.arithmetic + 3 * BYTES * sum(sizes) / self.memory + 3 * self.call

    def copy(self, size: int) -> float:
        """Seconds of a permute that copies ``size`` entries, forward and backward."""
        return 4 * BYTES * size / self.memory + 2 * self.call


def _padded(channels: int) -> int:
    return -(-channels // LANES) * LANES
