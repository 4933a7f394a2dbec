"""Ticks where runs are, and labels that do not lie over one another."""

from __future__ import annotations

from itertools import pairwise

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tdcompress.results.drawing.axes import round_ticks, run_ticks, set_scale, spread
from tdcompress.results.drawing.look import Look
from tdcompress.results.drawing.quantities import quantity


def test_ticks_are_where_runs_are():
    assert run_ticks([9.8, 10.1, 10.0, 39.7, 40.2]) == [10, 40]
    assert run_ticks([1200, 1216, 24_100]) == [1200, 24_000]
    assert run_ticks([0.003, 0.0015, 0.05], exact=True) == [0.0015, 0.003, 0.05]


def test_an_axis_says_that_it_is_logarithmic_and_has_the_ticks_of_the_sweep():
    figure, axes = Look().figure(2.0)
    axis = axes[0, 0]
    axis.plot([10.2, 39.6], [1, 2])
    set_scale(axis, quantity("compression_ratio"), [10.2, 39.6])
    figure.draw_without_rendering()
    assert axis.get_xlabel() == "compression ratio (log scale)" and axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["10x", "40x"]


def test_measured_values_have_round_ticks():
    assert round_ticks(5.7, 17.2) == [6, 8, 10, 12, 14, 16]
    assert round_ticks(3, 3000) == [5, 10, 20, 50, 100, 200, 500, 1000, 2000]


@settings(max_examples=60, deadline=None)
@given(some.lists(some.tuples(some.floats(0, 1), some.floats(0.02, 0.09)), min_size=1, max_size=10))
def test_labels_never_overlap_nor_leave_the_axes(labels):
    wanted, heights = map(list, zip(*labels, strict=True))
    places = spread(wanted, heights)
    ends = sorted((place - height / 2, place + height / 2) for place, height in zip(places, heights, strict=True))
    assert ends[0][0] > -1e-9 and ends[-1][1] < 1 + 1e-9
    assert all(top <= bottom + 1e-9 for (_, top), (bottom, _) in pairwise(ends))
    order = numpy.argsort(wanted, kind="stable")
    assert all(numpy.diff(numpy.array(places)[order]) > 0)


def test_labels_that_have_room_are_at_their_lines():
    assert spread([0.2, 0.8, 0.5], [0.1, 0.1, 0.1]) == pytest.approx([0.2, 0.8, 0.5])
    assert spread([0.5, 0.5], [0.1, 0.1]) == pytest.approx([0.45, 0.55])
