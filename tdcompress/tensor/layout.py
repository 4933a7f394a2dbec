"""How the modes of a weight are grouped into sites, independent of the format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .errors import ConfigError
from .graph import Site

LAYOUTS = ("channels", "matrix", "split", "paired")
SPLIT = LAYOUTS[2:]
"""Those that split channels into factors."""
KERNELS = ("merged", "separate", "open")
KERNEL_MODES = ("kd", "kh", "kw")
"""Modes of a kernel, the last of them those of a weight with fewer axes."""


@dataclass(frozen=True)
class Layout:
    """Sites of one weight: ``inputs`` then ``kernel`` then ``outputs``, in the order a chain visits them.

    ``open`` are the kernel modes that get no core of their own (Tucker-2). ``sizes`` are the mode sizes and
    ``modes`` their order in the dense weight, ``(outputs, inputs, kernel)`` as in torch. ``input_modes`` and
    ``output_modes`` are the modes that the input and the output channels are split into, whichever site they sit on.
    """

    inputs: tuple[Site, ...]
    kernel: tuple[Site, ...]
    outputs: tuple[Site, ...]
    open: Site
    modes: tuple[str, ...]
    sizes: Mapping[str, int]
    input_modes: tuple[str, ...]
    output_modes: tuple[str, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site, inputs first."""
        return self.inputs + self.kernel + self.outputs


def arrange(
    weight_shape: Sequence[int],
    layout: str,
    kernel: str = "merged",
    factors: int = 3,
    in_modes: Sequence[int] | None = None,
    out_modes: Sequence[int] | None = None,
) -> Layout:
    """Group the modes of a weight, ``(out, in)`` or ``(out, in, [[kd,] kh,] kw)``, into sites.

    ``channels``: ``i | kh kw | o``. ``matrix``: ``i kh kw | o``, the weight as a matrix. ``split``: ``i1 .. im | kh
    kw | o1 .. on`` (tensor ring nets, Wang et al. 2018, section 3). ``paired``: ``i1 o1 | .. | im om | kh kw``
    (Novikov et al. 2015, section 3; Garipov et al. 2016, section 4). ``kernel="separate"`` gives kh and kw a site
    each (Lebedev et al. 2015), ``"open"`` leaves them on the format's central core (Kim et al. 2016).

    The modes of the channels may hold more than these, see ``padded_factors`` and ``Graph.weight_shape``. Raises
    ``ConfigError`` for an unknown layout, for modes that hold fewer channels than there are, or twice as many, and for
    modes where channels are not split.
    """
    out_channels, in_channels, *spatial = weight_shape
    spatial_modes = KERNEL_MODES[len(KERNEL_MODES) - len(spatial) :]
    sizes: dict[str, int] = dict(zip(spatial_modes, spatial, strict=True))
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout '{layout}', known: {', '.join(LAYOUTS)}")
    if layout not in SPLIT:
        for name, given in (("in_modes", in_modes), ("out_modes", out_modes)):
            if given is not None:
                said = f"layout={layout} none: use {' or '.join(SPLIT)}"
                raise ConfigError(f"{name}={list(given)} splits channels, {said}")
        inputs, outputs = ("i",), ("o",)
        sizes |= {"i": in_channels, "o": out_channels}
    else:
        ins = _split("in_modes", in_channels, in_modes, factors)
        outs = _split("out_modes", out_channels, out_modes, factors)
        inputs = tuple(f"i{k}" for k in range(1, len(ins) + 1))
        outputs = tuple(f"o{k}" for k in range(1, len(outs) + 1))
        sizes |= dict(zip(inputs, ins, strict=True)) | dict(zip(outputs, outs, strict=True))

    kernel_sites: tuple[Site, ...] = (spatial_modes,) if kernel == "merged" else tuple((m,) for m in spatial_modes)
    if not spatial_modes or kernel == "open":
        kernel_sites = ()
    in_sites: tuple[Site, ...] = tuple((mode,) for mode in inputs)
    out_sites: tuple[Site, ...] = tuple((mode,) for mode in outputs)
    if layout == "matrix":
        in_sites, kernel_sites = ((*inputs, *spatial_modes),), ()
    if layout == "paired":
        if len(inputs) != len(outputs):
            raise ConfigError(
                f"layout=paired needs as many in_modes as out_modes, got {len(inputs)} and {len(outputs)}"
            )
        in_sites, out_sites = tuple(zip(inputs, outputs, strict=True)), ()
    return Layout(
        inputs=in_sites,
        kernel=kernel_sites,
        outputs=out_sites,
        open=spatial_modes if kernel == "open" and layout != "matrix" else (),
        modes=(*outputs, *inputs, *spatial_modes),
        sizes=sizes,
        input_modes=inputs,
        output_modes=outputs,
    )


def _split(name: str, channels: int, given: Sequence[int] | None, factors: int) -> tuple[int, ...]:
    if given is None:
        if factors < 1:
            raise ConfigError(f"factors={factors} must be at least 1")
        return padded_factors(channels, factors)
    example = f"for example {list(padded_factors(channels, len(given) or 1))}"
    if min(given, default=0) < 1:
        raise ConfigError(f"{name}={list(given)} must be whole numbers of at least 1 ({example})")
    if not channels <= math.prod(given) < max(2 * channels, channels + 1):
        raise ConfigError(
            f"{name}={list(given)} has product {math.prod(given)}, the layer has {channels} channels: it must be that "
            f"or somewhat more, less than twice as many ({example})"
        )
    return tuple(given)


def padded_factors(number: int, count: int) -> tuple[int, ...]:
    """``balanced_factors`` of ``number``, or of a larger one where its own are too unequal to be of use.

    A core has entries in proportion to the sizes of its modes. Where the factors of the number add up to more than
    twice those of the next number whose largest factor is at most twice its smallest, that one is taken: 50,257 is
    29 * 1,733 and gives 1, 29, 1733; 27 * 38 * 49 = 50,274 hold it, too.
    """
    own, larger = balanced_factors(number, count), number
    while (found := balanced_factors(larger, count))[-1] > 2 * found[0]:
        larger += 1
    return found if sum(own) > 2 * sum(found) else own


def factorisations(number: int, count: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a number of channels as ``count`` factors in order, padded as ``padded_factors`` has it."""
    yield from _divisions(math.prod(padded_factors(number, count)), count)


def _divisions(number: int, count: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            yield from ((first, *rest) for rest in _divisions(number // first, count - 1))


@lru_cache(maxsize=4096)
def balanced_factors(number: int, count: int) -> tuple[int, ...]:
    """``count`` ascending factors of ``number``, as near to one another as can be (512, 3 -> 8, 8, 8)."""
    if count == 1:
        return (number,)
    best = None
    for first in range(1, round(number ** (1 / count)) + 1):
        if number % first == 0:
            rest = balanced_factors(number // first, count - 1)
            if rest[0] >= first and (best is None or sum(best) > first + sum(rest)):
                best = (first, *rest)
    assert best is not None, "1 always divides"
    return best
