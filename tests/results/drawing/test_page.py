"""The page: what it says, that it needs nothing but itself, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import matplotlib.image
import pandas
import pytest
from runs import BASE, make

from tdcompress.results.drawing.comparison import comparisons
from tdcompress.results.drawing.figures import drawings
from tdcompress.results.drawing.page import cells, command, report
from tdcompress.results.drawing.page.answer import answers
from tdcompress.results.tables import read_results

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ACTIONS = """<script>{
const rows = () => [...document.querySelectorAll("#table tbody tr")].filter((row) => !row.hidden);
const column = (at) => rows().map((row) => row.cells[at].textContent);
const told = {all: column(1)};
const sizes = [...document.querySelectorAll("#table th")].find((cell) => cell.textContent === "parameters");
sizes.firstChild.click();
told.up = column(1);
sizes.firstChild.click();
told.down = column(1);
told.said = sizes.ariaSort;
const filter = document.getElementById("filter");
filter.value = "CP 10x";
filter.dispatchEvent(new Event("input"));
told.filtered = column(1);
told.count = document.getElementById("count").textContent;
told.wide = document.documentElement.scrollWidth <= innerWidth;
document.body.append(Object.assign(document.createElement("pre"), {id: "told", textContent: JSON.stringify(told)}));
}</script></html>"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("page")
    make(results, "dense", accuracy=0.99, parameters=10_000)
    for seed in range(3):
        make(results, "tt", seed=seed, accuracy=0.90 + seed / 1000)
        make(results, "cp", seed=seed, accuracy=0.93 + seed / 1000, parameters=1005)
    make(results, "tt", rank="2x", accuracy=0.987, parameters=5000)
    report.write_report(results)
    return results


def test_the_answer_comes_first(results):
    (comparison,) = comparisons(read_results(results)[0])
    smallest, best = answers(comparison)
    assert (smallest.asked, smallest.best) == ("fewest parameters within 0.5 points of dense", "tt 2x")
    assert (smallest.accuracy, smallest.against_baseline) == ("98.70 (1)", "-0.30 points, one seed")
    assert (best.asked, best.best, best.next, best.accuracy) == ("10x", "cp", "tt", "93.10 ± 0.10 (3)")
    assert best.ahead == "+3.00 points, more than the seeds' spread"
    text = (results / "report.html").read_text()
    places = [text.index(part) for part in ("Which is best?", best.ahead.replace("'", "&#39;"), "All networks", "<img")]
    assert places == sorted(places)


def test_the_page_needs_nothing_but_itself(results):
    text = (results / "report.html").read_text()
    assert not re.findall(r"import\(|fetch\(|(?:href|src|url)\W+https?:", text)
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    svgs = [unquote(found) for found in re.findall(r'src="data:image/svg\+xml,([^"]*)"', text)]
    found = list(drawings(*read_results(results)))
    assert len(svgs) == len(found) == text.count("src=") > 0
    assert all(f"figure={drawing.name}</code>" in text for drawing in found)
    for svg in svgs:
        ElementTree.fromstring(svg)
        assert svg.count("currentColor") > 3 and svg.count("#222222") == 1  # of light pages
    body = re.search(r'<table id="table">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)
    assert body and body[1].count("<tr>") == 4  # there before any script
    assert re.search(r'<p class="script" hidden>', text)


def test_a_row_has_the_size_of_the_runs_whose_accuracy_it_has(tmp_path):
    make(tmp_path, status="running", parameters=10_000)  # stopped while it was dense
    for seed, parameters in ((1, 990), (2, 1010)):
        make(tmp_path, seed=seed, parameters=parameters, lr=0.0123456789)
    make(tmp_path, lr=0.0123456789, status="running", parameters=10_000)
    (comparison,) = comparisons(read_results(tmp_path)[0])
    assert [row[3:7] for row in cells.rows(comparison.runs)] == [
        ["1,000", "10.0x", "3,000", "90.00 ± 0.00 (2) (1 interrupted)"],
        ["10,000", "1.0x", "30,000", "- (1 interrupted)"],
    ]
    assert [re.findall(r" lr=\S+| seed=\S+", line) for line in command.commands(comparison.runs)] == [
        [" lr=0.0123456789", " seed=0,1,2"],
        [" lr=0.05", " seed=0"],
    ]


def test_what_nobody_knows_is_a_dash(tmp_path):
    run = make(tmp_path)
    known = run.summary()
    run.write_summary(replace(known, train_seconds_per_epoch=None))
    (comparison,) = comparisons(read_results(tmp_path)[0])
    assert cells.rows(comparison.runs)[0][-2:] == ["-", "a CPU"]
    run.write_summary(replace(known, parameters=None, compression_ratio=None, macs=None, status="running"))
    assert cells.rows(read_results(tmp_path)[0])[0][3:6] == ["-", "-", "-"]


def test_seeds_that_start_from_one_seed_are_one_network(tmp_path):
    for seed in range(3):
        make(tmp_path, seed=seed, init_from="elsewhere/dense-1a2b/seed0")
    (comparison,) = comparisons(read_results(tmp_path)[0])
    assert sorted(comparison.runs["seed"]) == [0, 1, 2]
    assert "init_from=elsewhere/dense-1a2b/seed0" in command.commands(comparison.runs)[0]


def test_runs_of_networks_that_are_gone_are_told_all_the_same(tmp_path):
    run = make(tmp_path, dataset=replace(BASE.dataset, name="gone"))
    assert run.summary().dataset == "gone"
    (comparison,) = comparisons(read_results(tmp_path)[0])
    (line,) = command.commands(comparison.runs)
    assert "dataset=gone" in line and "method=tt rank=10x" in line


def test_seeds_that_start_from_seeds_of_one_network_are_one_network(tmp_path):
    for seed in (0, 1):
        for start in ("dense-1a2b", "dense-3c4d"):
            make(tmp_path, seed=seed, init_from=f"elsewhere/{start}/seed{seed}")
    found = {comparison.title: comparison.runs for comparison in comparisons(read_results(tmp_path)[0])}
    assert [title.rpartition(", ")[2] for title in sorted(found)] == [
        "from the weights of dense-1a2b", "from the weights of dense-3c4d",
    ]  # fmt: skip
    for runs in found.values():
        assert sorted(runs["seed"]) == [0, 1] and " (2)" in cells.rows(runs)[0][6]
        (line,) = command.commands(runs)
        assert re.search(r" seed=0,1 .*init_from=.*/seed\$\{seed\}", line)


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    run, other = make(tmp_path), make(tmp_path, seed=1)
    for one, name in ((run, "again"), (other, "once-more")):
        shutil.copytree(one.directory, one.directory.parents[1] / name / one.directory.name)
    other.write_summary(replace(other.summary(), status="interrupted"))
    runs = read_results(tmp_path)[0]
    with pytest.warns(UserWarning, match="is left out: the same run is there in another directory"):
        (comparison,) = comparisons(runs)
    kept = sorted(Path(directory).relative_to(tmp_path).parts[-2:] for directory in comparison.runs["directory"])
    assert kept == [("again", "seed0"), ("once-more", "seed1")]
    (run.directory / "summary.json").write_text("{")
    with pytest.warns(UserWarning, match="seed0 is left out: its summary.json is missing or damaged"):
        report.write_report(tmp_path)


def test_hundreds_of_runs_are_a_small_page(results, tmp_path, monkeypatch):
    runs, epochs = read_results(results)
    many = pandas.concat(
        [runs.assign(rank=runs["rank"].replace("10x", f"{10 + k}x"), seed=runs["seed"] + 10 * k) for k in range(44)]
    )
    monkeypatch.setattr(report, "read_results", lambda _: (many.reset_index(drop=True), epochs))
    monkeypatch.setattr(report, "write_results", lambda *_: [])
    monkeypatch.setattr(report, "drawings", lambda *_: [])
    report.write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "352 runs, 352 finished." in text and len(text) < 200_000


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_table_is_sorted_and_filtered(results, tmp_path):
    page = tmp_path / "page.html"
    page.write_text((results / "report.html").read_text().replace("</html>", ACTIONS))
    shown = browse(page, tmp_path, "--dump-dom", "--window-size=500,900")
    assert "CONSOLE" not in shown.stderr, shown.stderr  # no error, no warning
    found = re.search(r'<pre id="told">(.*?)</pre>', shown.stdout)
    assert found, shown.stdout[-2000:]
    told = json.loads(found[1])
    assert told["all"] == ["dense", "cp", "tt", "tt"]
    assert told["up"] == ["tt", "cp", "tt", "dense"] and told["down"] == ["dense", "tt", "cp", "tt"]
    assert told["said"] == "descending" and told["filtered"] == ["cp"] and told["count"] == "1 of 4"
    assert told["wide"]  # nothing sticks out of a narrow window


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("flags", [[], ["--force-dark-mode", "--window-size=400,900"]], ids=["light", "dark-narrow"])
def test_a_browser_shows_it(results, tmp_path, flags):
    browse(
        results / "report.html", tmp_path, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1200,2400", *flags
    )
    picture = matplotlib.image.imread(tmp_path / "shot.png")[..., :3]
    paper = picture[2, 2]
    assert (paper.max() < 0.2) if flags else (paper.min() > 0.95)
    assert 0.005 < (abs(picture - paper).max(axis=-1) > 0.3).mean() < 0.5  # letters and lines


def browse(page: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    own = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    own += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    words = [str(BROWSER), *own, *flags, page.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
