"""Clips from files: which frames are read, what is said of files that are none, and a network that learns motion."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy
import pytest
import torch

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data.datasets import datasets
from tdcompress.data.sources import find, load, shape
from tdcompress.results.identity import run_directory
from tdcompress.results.run import Run
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.run import train

av = pytest.importorskip("av")
CPU = torch.device("cpu")
SIZE, LENGTH = 32, 12
pytestmark = pytest.mark.usefixtures("one_thread")


def write(path, frames, codec="mpeg4", options=None):
    """A clip of uint8 frames ``(n, height, width, 3)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def greys(*values, size=SIZE):
    """Frames of one grey each: a codec keeps these to within a few levels."""
    return numpy.stack([numpy.full((size, size, 3), value, dtype=numpy.uint8) for value in values])


def moving(rng, step):
    """A bright square on a dark ground that moves ``step`` pixels a frame, to the right or to the left."""
    frames = rng.integers(0, 30, (LENGTH, SIZE, SIZE, 3), dtype=numpy.uint8)
    top, left = rng.integers(0, SIZE - 10, 2)
    for frame in frames:
        frame[top : top + 10, numpy.arange(left, left + 10) % SIZE] = 230
        left += step
    return frames


@pytest.fixture
def squares(tmp_path):
    """Two classes that differ in nothing but the direction of motion."""
    rng = numpy.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for name, step in (("left", -2), ("right", 2)):
            for number in range(count):
                write(tmp_path / "clips" / split / name / f"{number}.avi", moving(rng, step))
    return DatasetConfig("video_folder", root=str(tmp_path / "clips"), frames=6, image_size=16)


@pytest.fixture
def few(tmp_path):
    """A clip a class and split, each frame twelve levels brighter than the one before."""
    for split in ("train", "test"):
        for name, first in (("a", 10), ("b", 100)):
            write(tmp_path / split / name / "1.mp4", greys(*range(first, first + 144, 12)))
    return DatasetConfig("video_folder", root=str(tmp_path), frames=3)


@pytest.mark.parametrize(
    ("frames", "wanted"), [(1, [6]), (3, [2, 6, 10]), (6, [1, 3, 5, 7, 9, 11]), (12, list(range(12)))]
)
def test_frames_are_evenly_spaced_and_stacked_as_channels(few, frames, wanted):
    found = load(replace(few, frames=frames))
    assert found.train_images.shape == (2, SIZE, SIZE, 3 * frames)
    assert found.train_images.dtype == torch.uint8
    assert found.train_labels.tolist() == [0, 1] and found.classes == 2
    for clip, first in zip(found.train_images, (10, 100), strict=True):
        values = clip.float().mean((0, 1)).view(frames, 3)
        expected = torch.tensor([[first + 12.0 * position] * 3 for position in wanted])
        torch.testing.assert_close(values, expected, rtol=0, atol=5.9)  # below half of what lies between two frames


@pytest.mark.parametrize(("name", "codec"), [("2.mp4", "mpeg4"), ("2.avi", "mpeg4"), ("2.gif", "gif")])
def test_containers_colours_and_sizes(few, tmp_path, name, codec):
    frames = numpy.zeros((4, 24, 40, 3), dtype=numpy.uint8)
    frames[:2, ..., 0], frames[2:, ..., 2] = 250, 250  # red, then blue
    write(tmp_path / "train" / "a" / name, frames, codec)
    found = load(replace(few, frames=2, image_size=8)).train_images
    assert found.shape == (3, 8, 8, 6)
    colours = found[1].float().mean((0, 1))
    torch.testing.assert_close(colours, torch.tensor([250.0, 0, 0, 0, 0, 250]), rtol=0, atol=12)


def test_clips_are_decoded_at_their_turn(few):
    assert shape(replace(few, image_size=8)) == (9, 8, 2)
    assert shape(few) == (9, SIZE, 2)
    whole, later = load(few).train_images, find(few).train_images
    assert torch.equal(later[[1, 0]], whole[[1, 0]])
    assert torch.equal(find(replace(few, limit=1)).train_images[[0]], load(replace(few, limit=1)).train_images)


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_is_as_decoded_and_augmentation_treats_frames_alike(few, workers):
    config = replace(few, padding=3, flip=True, image_size=16)
    held = datasets(replace(config, stream=False), CPU).train
    streamed = datasets(replace(config, stream=True, workers=workers), CPU, lambda line: None).train
    for (images, labels), (others, more) in zip(
        held.epoch(2, 0, 1, shuffle=True), streamed.epoch(2, 0, 1, shuffle=True), strict=True
    ):
        assert torch.equal(images, others) and torch.equal(labels, more)
        border = (images - images[:, :, 8:9, 8:9]).abs() > 0.3  # the clips are of one grey, what is padded is black
        assert images.shape == (2, 9, 16, 16) and border.any()
        assert all(torch.equal(border[:, 0], border[:, channel]) for channel in range(9))


FAULTS = {
    "train/a/2.mp4 is not a clip that can be read: Invalid data found when processing input .dataset": lambda root: (
        root / "train/a/2.mp4"
    ).write_text("no"),
    "test/b/1.mp4 is not a clip that can be read": lambda root: cut(root / "test/b/1.mp4"),
    "train/b/2.avi is not a clip that can be read: it has 2 frames, dataset.frames=3 asks for more": lambda root: write(
        root / "train/b/2.avi", greys(1, 2)
    ),
    "train/b/2.mp4 is not a clip that can be read: it has no pictures": lambda root: sound(
        root / "train/b/2.wav"
    ).rename(root / "train/b/2.mp4"),
    "train are not of one size .24x24, 32x32.: set dataset.image_size": lambda root: write(
        root / "train/b/2.avi", greys(1, 2, 3, size=24)
    ),
    "class folder .*train/a is empty": lambda root: (root / "train/a/1.mp4").unlink(),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:400])


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 800), dtype=numpy.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return path


def test_what_is_no_clip_is_skipped_and_counted(few, tmp_path):
    sound(tmp_path / "train/b/2.wav")
    (tmp_path / "train/a/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "test/a/cover.png").write_bytes(b"FFmpeg would read it as a clip")
    (tmp_path / "train/a/1.mp4").rename(tmp_path / "train/a/without_suffix")
    found = load(few)
    assert found.train_labels.tolist() == [0, 1]
    names = "2.wav, Thumbs.db, cover.png"
    assert found.notes == (f"under {tmp_path} 3 files are skipped as no clips of a class: {names}",)


@pytest.mark.parametrize(
    ("name", "codec", "said"),
    [
        ("2.mkv", "mpeg4", r"[\d.]+ s of 2.0 s"),
        ("2.webm", "libvpx", r"[\d.]+ s of 2.0 s"),
        ("2.avi", "mpeg4", ""),
    ],
)
def test_a_clip_that_is_cut_short_is_refused(few, tmp_path, name, codec, said):
    path = tmp_path / "train/a" / name
    write(path, numpy.random.default_rng(0).integers(0, 255, (20, SIZE, SIZE, 3), dtype=numpy.uint8), codec)
    assert len(load(few).train_images) == 3
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(ConfigError, match=rf"{name} is not a clip that can be read: it is cut short: {said}"):
        load(few)


def test_a_clip_may_hold_frames_before_the_first_that_is_shown(few, tmp_path):
    whole, trimmed = tmp_path / "whole.mp4", tmp_path / "train/a/2.mp4"
    frames = numpy.random.default_rng(0).integers(0, 255, (40, SIZE, SIZE, 3), dtype=numpy.uint8)
    write(whole, frames, options={"g": "40"})  # of which only the first is whole
    with av.open(str(whole)) as given, av.open(str(trimmed), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                shift = round(3 / packet.time_base)  # the last of four seconds are shown
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)
    with av.open(str(trimmed)) as container:
        assert container.streams.video[0].frames == 40 and container.duration < 1.2 * av.time_base
    assert len(load(few).train_images) == 3


def test_sound_may_outlast_the_pictures(few, tmp_path):
    with av.open(str(tmp_path / "train/a/2.mkv"), "w") as container:
        pictures, stream = container.add_stream("mpeg4", rate=10), container.add_stream("pcm_s16le", rate=8000)
        pictures.height, pictures.width, pictures.pix_fmt = SIZE, SIZE, "yuv420p"
        for frame in greys(10, 20, 30):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode())
        silence = av.AudioFrame.from_ndarray(numpy.zeros((1, 8000), dtype=numpy.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    assert len(load(few).train_images) == 3


@pytest.mark.parametrize("message", FAULTS)
def test_files_that_are_no_clips_are_told_in_one_line(few, tmp_path, message):
    FAULTS[message](tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        load(few)
    assert "\n" not in str(caught.value)


def test_settings_that_are_missing(few, monkeypatch):
    with pytest.raises(ConfigError, match=r"dataset=video_folder needs dataset\.root=DIR"):
        find(replace(few, root=None))
    with pytest.raises(ConfigError, match=r"dataset=video_folder needs dataset\.frames"):
        find(replace(few, frames=None))
    with pytest.raises(ConfigError, match=r"dataset\.frames=0 must be at least 1"):
        find(replace(few, frames=0))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else found(name))
    with pytest.raises(ConfigError, match=r"PyAV is missing; pip install 'tdcompress\[video\]'"):
        find(few)


def test_a_tt_lstm_tells_left_from_right(squares, tmp_path):
    config = TrainConfig(
        dataset=squares,
        arch=ArchConfig("lstm", hidden=32, frames=6),
        method=MethodConfig("tt"),
        optim=OptimConfig({"_target_": "torch.optim.SGD", "momentum": 0.9}, clip=1.0),
        rank="10x",
        epochs=12,
        batch_size=10,
        device="cpu",
        precision="fp32",
        results_dir=str(tmp_path / "results"),
    )
    summary = train(config, Run(run_directory(config, config)), lambda line: None)
    assert {layer["name"]: layer["format"] for layer in summary.layers} == {
        **{"rnn.ih_l0": "tt", "rnn.hh_l0": "tt", "fc": "dense"}
    }
    assert summary.layers[0]["shape"] == [128, 3 * 16 * 16]
    assert summary.test_accuracy >= 0.75  # of 40 clips: by chance once in 900
