"""A folder of video clips, one folder a class: listed at once, decoded by PyAV when asked for."""

from __future__ import annotations

import importlib.util
import mimetypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tensor.errors import ConfigError
from .image_folder import UNREADABLE, FolderImages

_WHOLE = 0.9  # of the time that a file promises: how long its last frame stands is not always told


def refuse_missing() -> None:
    """Raise ``ConfigError`` where PyAV, which all of this needs, is missing."""
    if importlib.util.find_spec("av") is None:
        raise ConfigError("dataset=video_folder: PyAV is missing; pip install 'tdcompress[video]'")


class FolderClips(FolderImages):
    """Clips in files, indexed like a uint8 tensor ``(n, height, width, 3 * frames)``: frames are stacked as channels.

    A clip is cut into ``frames`` parts of equal length, and the frame in the middle of each is taken, in their order:
    channels ``3 k`` to ``3 k + 2`` are red, green and blue of the ``k``-th. So a crop or a flip of the stack is the
    same for all its frames. ``size``: the side of a square in pixels that each frame is brought to; None: as stored.
    """

    kind, kinds = "a clip", "clips"

    def __init__(self, folder: Path, files: Sequence[Path], size: int | None, frames: int) -> None:
        self.frames, self.channels = frames, 3 * frames
        super().__init__(folder, files, size)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a file is meant to be a clip: by its name, and where that does not tell, by what FFmpeg finds."""
        named = mimetypes.guess_type(path.name)[0]
        if named is not None:
            return named.startswith("video/") or named == "image/gif"
        import av

        broken: tuple[type[Exception], ...] = (*UNREADABLE, av.FFmpegError)
        try:
            with av.open(str(path)) as container:
                return bool(container.streams.video)
        except broken:
            return False

    def read(self, path: Path) -> Tensor:
        """One clip, uint8 ``(height, width, 3 * frames)``.

        Raises ``ConfigError`` for a file that FFmpeg cannot read, that ends before its time, or that has fewer frames.
        """
        import av

        broken: tuple[type[Exception], ...] = (*UNREADABLE, av.FFmpegError)
        try:
            # Not every container knows how many there are, and to keep them all would take gigabytes of a long clip.
            count = sum(1 for _ in _frames(path))
            _refuse_cut_short(path)
            if count < self.frames:
                raise ValueError(f"it has {count} frames, dataset.frames={self.frames} asks for more")
            chosen = {(2 * part + 1) * count // (2 * self.frames) for part in range(self.frames)}
            pixels = [self._pixels(frame) for position, frame in enumerate(_frames(path)) if position in chosen]
            return torch.cat(pixels, 2)
        except broken as error:
            raise self.unreadable(path, error) from None

    def _pixels(self, frame: Any) -> Tensor:
        """A frame of PyAV's, uint8 ``(height, width, 3)``."""
        return torch.from_numpy(frame.to_ndarray(format="rgb24", width=self.size, height=self.size))


def _refuse_cut_short(path: Path) -> None:
    """Raise ``ValueError`` where a file ends long before the time that its beginning promises, if it promises one.

    Its end is that of all streams, because sound may outlast the pictures.
    """
    import av

    end = 0.0
    with av.open(str(path)) as container:
        promised = (container.duration or 0) / av.time_base
        for packet in container.demux():
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
        held = end - (container.start_time or 0) / av.time_base
    if held < _WHOLE * promised:
        raise ValueError(f"it is cut short: {held:.1f} s of {promised:.1f} s")


def _frames(path: Path) -> Iterator[Any]:
    """The frames of a file as PyAV decodes them, one at a time. Raises ``ValueError`` for a file without pictures."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # several files are decoded side by side
        yield from container.decode(stream)
