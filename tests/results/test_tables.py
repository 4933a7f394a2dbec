"""The tables that a repository keeps, and the pages made of them."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from runs import BASE, make

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig
from tdcompress.results.drawing.comparison import comparisons
from tdcompress.results.drawing.figures import drawings
from tdcompress.results.drawing.page.cells import markdown
from tdcompress.results.drawing.page.command import commands
from tdcompress.results.drawing.page.report import write_report
from tdcompress.results.identity import arch_name
from tdcompress.results.tables import read_results, write_results
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


def tables(results):
    """Write the tables, and read them."""
    return write_results(results, *read_results(results))


def test_the_tables_alone_draw_the_same_figures(results):
    before = {drawing.name: drawing.caption for drawing in drawings(*read_results(results))}
    tables(results)
    shutil.rmtree(results / "runs")
    after = {drawing.name: drawing.caption for drawing in drawings(*read_results(results))}
    assert after == before and len(after) >= 5


def test_own_runs_come_before_the_kept_ones_and_none_is_lost(results):
    (make(results, "tr").directory / "summary.json").write_text("{")
    tables(results)
    shutil.rmtree(results / "runs")
    make(results, seed=0, accuracy=0.5)
    make(results, seed=7, accuracy=0.6)
    runs, epochs = read_results(results, method="tt", status="finished")
    assert dict(zip(runs.seed, runs.test_accuracy, strict=True)) == {0: 0.5, 1: 0.93, 7: 0.6}
    assert sorted(epochs.groupby("directory").test_accuracy.last()) == [0.5, 0.6, 0.93]
    summary, _ = tables(results)
    text, table = summary.read_text(), pandas.read_csv(summary)
    assert len(table) == 8 and set(table.status) == {"finished", "diverged", "interrupted"}
    assert not table.directory.str.contains(str(results)).any()
    assert tables(results)[0].read_text() == text


def test_a_broken_run_is_that_of_the_table(results):
    tables(results)
    (results / "runs/mnist/lenet/tt-10x/seed1/summary.json").write_text("{")
    runs, epochs = read_results(results, method="tt", seed=1)
    assert runs.status.tolist() == ["finished"] and runs.test_accuracy.tolist() == [0.93] and len(epochs) == 4


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("summary.csv", lambda text: ""),
        ("metrics.csv", lambda text: ""),
        ("summary.csv", lambda text: text[: len(text) // 2]),
        ("summary.csv", lambda text: "<<<<<<< HEAD\n" + text),
        ("metrics.csv", lambda text: "<<<<<<< HEAD\n" + text),
        ("summary.csv", lambda text: text.replace(",", ";")),
        ("summary.csv", lambda text: text + text),
        ("metrics.csv", lambda text: text + text),
    ],
)
def test_damaged_tables_are_one_line(results, name, damage):
    tables(results)
    (results / name).write_text(damage((results / name).read_text()))
    shutil.rmtree(results / "runs")
    with pytest.raises(ConfigError, match=rf"{name} is damaged \(\w+\): restore or delete it"):
        read_results(results)


@pytest.mark.parametrize("label", ["NA", "None", "nan", "CIFAR-10 (JPEG)"])
def test_words_that_mean_nothing_elsewhere_are_kept(tmp_path, label):
    make(tmp_path, dataset=DatasetConfig("mnist", label=label))
    tables(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert read_results(tmp_path)[0].dataset_label.tolist() == [label]


def test_pandas_reads_the_table_of_runs_without_options_and_its_columns_are_documented(results):
    table = pandas.read_csv(tables(results)[0])
    unfinished = table[table.status == "interrupted"].iloc[0]
    assert math.isnan(unfinished.test_accuracy) and table.lr.dtype == float
    assert set(table.parameters) == {1000, 2000, 10_000} and ".0" not in set(table.parameters.astype(str).str[-2:])
    for column in ("seed", "epochs_done", "epochs", "batch_size", "parameters", "macs"):
        assert table[column].dtype == int, column
    page = (Path(__file__).resolve().parents[2] / "docs" / "command_line.md").read_text()
    documented = page.split("### Columns of summary.csv")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", documented, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(table.columns)


def told(results):
    """report.md."""
    return "\n".join(map(markdown, comparisons(read_results(results)[0])))


def test_the_tables_say_mean_and_spread_over_seeds(results):
    text = told(results)
    spread = 100 * math.sqrt((0.90 - 0.915) ** 2 + (0.93 - 0.915) ** 2)
    assert f"| tt | 10x | 0.05 | 1,000 | 10.0x | 3,000 | 91.50 ± {spread:.2f} (2) | 93.00 | 2.50 | a CPU |" in text
    assert "| cp | 10x | 0.05 | 1,000 | 10.0x | 3,000 | - (2 diverged) | - | - | a CPU |" in text
    assert "| dense | - | 0.05 | 10,000 | 1.0x |" in text
    assert "tdc train -m method=cp,tt rank=10x lr=0.05 epochs=4 batch_size=100 seed=0,1 dataset=mnist " in text
    assert "tdc train -m method=dense,ht rank=10x lr=0.05 epochs=4 batch_size=100 seed=0 dataset=mnist" in text
    assert re.search("method=tt method.conv=cp rank=10x .* method.layout=split", text)


def test_the_best_is_a_mean_where_it_was_chosen_by_validation(tmp_path):
    for seed, accuracy in enumerate((0.80, 0.90)):
        make(tmp_path, "tr", seed=seed, accuracy=accuracy, dataset=DatasetConfig("mnist", validation=0.1))
    text, spread = told(tmp_path), 100 * math.sqrt(0.005)
    assert f"| 85.00 ± {spread:.2f} (2) | 83.00 ± {spread:.2f} (2) |" in text and "dataset.validation=0.1" in text


def test_the_commands_can_be_given_again(results):
    layers = {"features.conv2_1": {"rank": [4, 8], "layout": "split"}, "fc*": {"rank": 3}}
    make(results, MethodConfig("tt", layers=layers))
    (comparison,) = comparisons(read_results(results)[0])
    (word,) = re.findall(r"'(method\.layers=[^']*)'", "\n".join(commands(comparison.runs)))
    assert OverridesParser.create().parse_override(word).value() == layers


def test_the_commands_name_networks_as_a_command_line_does(tmp_path):
    arches = [ArchConfig("torchvision", model="resnet50"), ArchConfig("mine", target={"_target_": "mine.Net"})]
    for arch in arches:
        run = make(tmp_path, arch=arch)
        run.write_summary(replace(run.summary(), arch=arch_name(replace(BASE, arch=arch))))
    made = ["\n".join(commands(comparison.runs)) for comparison in comparisons(read_results(tmp_path)[0])]
    assert sorted(re.findall(r"arch\S*", text) for text in made) == [
        ["arch.target._target_=mine.Net"], ["arch=torchvision", "arch.model=resnet50"],
    ]  # fmt: skip


def test_no_finished_run_is_no_report(tmp_path):
    make(tmp_path, status="diverged")
    with pytest.raises(ConfigError, match="no finished runs in"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
