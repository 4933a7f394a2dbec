"""How figures look: colours that everybody can tell apart, sizes that fit a page, and what one may choose."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import numpy
import pandas
import pytest

from tdcompress.results.drawing.look import COLOURS, INK, MARKERS, Look, known_formats, method_style
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import BASELINE, FORMATS

# Machado, Oliveira and Fernandes (2009), at full severity; linear RGB.
VISIONS = {
    "normal": numpy.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def linear(colour):
    encoded = numpy.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return numpy.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(colour, vision):
    """CIE 1976 L*a*b* of a colour as somebody sees it, under D65."""
    xyz = TO_XYZ @ numpy.clip(VISIONS[vision] @ linear(colour), 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = numpy.where(xyz > (6 / 29) ** 3, numpy.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return numpy.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart_with_any_kind_of_colour_vision(vision):
    ours = [method_style(name)["color"] for name in FORMATS]
    assert len(set(ours)) == len(FORMATS)
    distances = [numpy.linalg.norm(lab(a, vision) - lab(b, vision)) for a, b in combinations(ours, 2)]
    assert min(distances) > 15
    distances = [numpy.linalg.norm(lab(a, vision) - lab(b, vision)) for a, b in combinations([INK, *COLOURS], 2)]
    assert min(distances) > 10  # those that no format has yet


def test_colours_stand_out_from_paper_and_markers_differ():
    for colour in (INK, *COLOURS):
        assert 1.05 / (linear(colour) @ TO_XYZ[1] + 0.05) > 2
    assert len(set(MARKERS)) == len(MARKERS) == len(COLOURS) >= len(known_formats())


def test_a_format_has_its_colour_and_marker_in_every_combination():
    assert method_style("tt+cp_conv") == method_style("tt") != method_style("cp")
    assert method_style("dense")["color"] == INK


def table(*methods):
    return pandas.DataFrame({"method": methods, "label": methods})


def test_lines_follow_one_another_as_chosen():
    runs = table("ht", "dense", "tt", "cp")
    assert [label for label, _, _ in Look().lines(runs)] == [BASELINE, "cp", "ht", "tt"]
    assert [label for label, _, _ in Look(order=("tt", "ht")).lines(runs)] == ["tt", "ht", BASELINE, "cp"]


def test_lines_of_one_colour_differ():
    runs = pandas.DataFrame({"method": ["tt"] * 3, "label": ["tt 2", "tt 4", "tt 8"]})
    for key in ("ls", "fillstyle"):  # a figure may have no lines, or no markers
        assert len({style[key] for _, style, _ in Look().lines(runs)}) == 3


def test_sizes():
    assert (Look.sized("column").width, Look.sized("page").width) == (3.5, 7.16)  # IEEE: 252 and 516 points of TeX
    assert (Look.sized("5.5x3").width, Look.sized("5.5x3").height) == (5.5, 3.0)
    for bad in ("large", "0x3", "3x", "100x100", "3x-1"):
        with pytest.raises(ConfigError, match="is none of column, page, and a width and a height in inches"):
            Look.sized(bad)


def test_a_style_file_is_read_and_a_bad_one_refused(tmp_path):
    (tmp_path / "own.mplstyle").write_text("font.size: 11\n")
    with Look(style=str(tmp_path / "own.mplstyle")).applied():
        assert matplotlib.rcParams["font.size"] == 11 and matplotlib.rcParams["axes.spines.top"] is False
    (tmp_path / "bad.mplstyle").write_text("font.size: large as a house\n")
    for name in ("bad.mplstyle", "none.mplstyle"):
        with (
            pytest.raises(ConfigError, match=f"style=.*{name} is no style file"),
            Look(style=str(tmp_path / name)).applied(),
        ):
            pass
