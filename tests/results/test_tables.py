"""The tables that a repository keeps, and the pages made of them."""

from __future__ import annotations

import math
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pandas
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from runs import make

from tdcompress.config.schema import DatasetConfig, MethodConfig
from tdcompress.results.drawing.figures import drawings, plot_all
from tdcompress.results.drawing.page import write_report
from tdcompress.results.tables import read_results
from tdcompress.tensor.errors import ConfigError


@pytest.fixture
def results(tmp_path):
    make(tmp_path, "dense", accuracy=0.99, parameters=10_000)
    for seed, accuracy in enumerate((0.90, 0.93)):
        make(tmp_path, seed=seed, accuracy=accuracy)
        make(tmp_path, "cp", seed=seed, status="diverged")
    make(tmp_path, "ht", status="running")
    make(tmp_path, MethodConfig("tt", conv="cp", layout="split"), parameters=2000)
    return tmp_path


def test_the_tables_alone_draw_the_same_figures(results):
    before = {drawing.name: drawing.caption for drawing in drawings(*read_results(results))}
    svgs = {path: path.read_bytes() for path in plot_all(results, ("svg",)) if "accuracy_over" in path.name}
    write_report(results)
    shutil.rmtree(results / "runs")
    after = {drawing.name: drawing.caption for drawing in drawings(*read_results(results))}
    assert {name: caption.replace("; tr-10x-", "#") for name, caption in after.items()}.keys() == before.keys()
    for name, caption in after.items():
        assert caption == re.sub(r"; tr-10x\S*/seed0 \(broken\)", "", before[name])
    assert len(svgs) >= 5


def test_own_runs_come_before_the_kept_ones_and_none_is_lost(results):
    (make(results, "tr").directory / "summary.json").write_text("{")
    write_report(results)
    shutil.rmtree(results / "runs")
    make(results, seed=0, accuracy=0.5)
    make(results, seed=7, accuracy=0.6)
    runs, epochs = read_results(results, method="tt", status="finished")
    assert dict(zip(runs.seed, runs.test_accuracy, strict=True)) == {0: 0.5, 1: 0.93, 7: 0.6}
    assert sorted(epochs.groupby("directory").test_accuracy.last()) == [0.5, 0.6, 0.93]
    write_report(results)
    table = pandas.read_csv(results / "summary.csv")
    assert len(table) == 8 and set(table.status) == {"finished", "diverged", "interrupted"}
    assert not table.directory.str.contains(str(results)).any()
    assert (results / "summary.csv").read_text() == (write_report(results)[2]).read_text()


def test_the_tables_say_mean_and_spread_over_seeds(results):
    write_report(results)
    text = (results / "report.md").read_text()
    spread = 100 * math.sqrt((0.90 - 0.915) ** 2 + (0.93 - 0.915) ** 2)
    assert f"| tt | 10x | 0.05 | 1,000 | 10.0x | 3,000 | 91.50 ± {spread:.2f} (2) | 93.00 | 2.50 | a CPU |" in text
    assert "| cp | 10x | 0.05 | 1,000 | 10.0x | 3,000 | - (2 diverged) | - | - | a CPU |" in text
    assert "| dense | - | 0.05 | 10,000 | 1.0x |" in text
    assert "tdc train -m dataset=mnist arch=lenet method=cp,dense,ht,tt rank=10x lr=0.05 epochs=4" in text
    assert "method=tt method.conv=cp method.layout=split rank=10x" in text


def test_the_best_is_a_mean_where_it_was_chosen_by_validation(tmp_path):
    for seed, accuracy in enumerate((0.80, 0.90)):
        make(tmp_path, "tr", seed=seed, accuracy=accuracy, dataset=DatasetConfig("mnist", validation=0.1))
    write_report(tmp_path)
    text, spread = (tmp_path / "report.md").read_text(), 100 * math.sqrt(0.005)
    assert f"| 85.00 ± {spread:.2f} (2) | 83.00 ± {spread:.2f} (2) |" in text and "dataset.validation=0.1" in text


def test_the_commands_can_be_given_again(results):
    layers = {"features.conv2_1": {"rank": [4, 8], "layout": "split"}, "fc*": {"rank": 3}}
    make(results, MethodConfig("tt", layers=layers))
    write_report(results)
    (word,) = re.findall(r"'(method\.layers=[^']*)'", (results / "report.md").read_text())
    assert OverridesParser.create().parse_override(word).value() == layers


def test_the_page_needs_nothing_but_itself(results):
    write_report(results)
    text = (results / "report.html").read_text()
    assert "<script" not in text and "src=" not in text and "prefers-color-scheme: dark" in text
    assert not re.findall(r"(?:href|url)\W+https?:", text.replace("http://www.w3.org", ""))
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    count = len(list(drawings(*read_results(results))))
    assert len(svgs) == count > 0 and all("currentColor" in svg and "#222222" not in svg for svg in svgs)
    for svg in svgs:
        ElementTree.fromstring(svg)


def test_no_finished_run_is_no_report(tmp_path):
    make(tmp_path, status="diverged")
    with pytest.raises(ConfigError, match="no finished runs in"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
