"""Tables for a paper, against numbers worked out by hand."""

from __future__ import annotations

import re

import pytest
from runs import make

from tdcompress.config.schema import MethodConfig
from tdcompress.results.drawing.page.paper import write_tables
from tdcompress.tensor.errors import ConfigError


@pytest.fixture
def results(tmp_path):
    make(tmp_path, "dense", accuracy=0.99, parameters=10_000)
    for seed, accuracy in enumerate((0.90, 0.93)):
        make(tmp_path, seed=seed, accuracy=accuracy)
    make(tmp_path, "cp", accuracy=0.88)
    make(tmp_path, "cp", seed=1, status="diverged")
    make(tmp_path, "tt", rank="macs:0.2", parameters=2000, accuracy=0.97)
    make(tmp_path, MethodConfig("ht", init="orthogonal"), accuracy=0.5)
    return tmp_path


def test_markdown_has_mean_and_deviation_and_the_best_in_bold(results):
    path = write_tables(results, "markdown")
    assert path == results / "tables.md"
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    assert lines[0] == "| method | rank | parameters | compression | MACs per image | test accuracy (%) | seeds |"
    assert set(lines[2:]) == {
        "| dense | - | 10,000 | 1.0x | 30,000 | 99.00 | 1 |",
        "| tt | 10x | 1,000 | 10.0x | 3,000 | **91.50 ± 2.12** | 2 |",
        "| cp | 10x | 1,000 | 10.0x | 3,000 | 88.00 | 1, 1 diverged |",
        "| ht init orthogonal | 10x | 1,000 | 10.0x | 3,000 | 50.00 | 1 |",
        "| tt | 20 % of the MACs | 2,000 | 5.0x | 6,000 | 97.00 | 1 |",
    }
    assert "tdc train -m method=cp,tt rank=10x " in path.read_text()


def test_latex_is_booktabs_with_its_characters_escaped(results):
    text = write_tables(results, "latex").read_text()
    assert r"tt & 10x & 1,000 & 10.0x & 3,000 & \textbf{91.50 $\pm$ 2.12} & 2 \\" in text
    assert r"tt & 20 \% of the MACs & 2,000" in text and r"test accuracy (\%)" in text
    assert re.findall(r"\\(\w+rule)", text) == ["toprule", "midrule", "bottomrule"]
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%#_]", "\n".join(body)) and "{llrrrrr}" in text
    opened = [kind for line in body for kind in re.findall(r"\\(?:begin|end)\{(\w+)\}", line)]
    assert opened == ["table", "tabular", "tabular", "table"]


def test_the_learning_rate_is_told_where_it_differs(results):
    make(results, "cp", lr=0.5, accuracy=0.92)
    lines = write_tables(results, "markdown").read_text().splitlines()
    assert "| cp | 10x | 0.5 | 1,000 | 10.0x | 3,000 | **92.00** | 1 |" in lines


def test_no_finished_run_is_no_table(tmp_path):
    make(tmp_path, status="diverged")
    with pytest.raises(ConfigError, match="no finished runs in"):
        write_tables(tmp_path, "latex")
