"""What stands in results/published and in the pages: of one version, and made by one command."""

from __future__ import annotations

import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from publish import golden, pages
from publish.cells import accuracy, speed
from publish.protocol import PROTOCOL, Part
from publish.published import Published
from reproduce import Options, Reproduction

from docs import PUBLISHED
from tdcompress.config.command import parsed

TINY = ("dataset.limit=60", "arch.width=0.25", "batch_size=30", "epochs=2", "rank=5x", "full_rank_epochs=0")
NETWORK = ("arch=lenet", "width=0.1", "dataset=digits", "method=tt")
TOY = (
    Part("digits", "two formats", ("train", "-m", "dataset=digits", *TINY, "method=dense,tt"), 0.1, "digits"),
    Part("again", "one of them", ("train", "-m", "dataset=digits", *TINY, "method=dense,cp"), 0.1, "digits"),
    Part("infer", "times", ("bench", "infer", *NETWORK, "rank=4", "batch_size=1", "repeats=1"), 0.1),
    Part("step", "times of the first", ("bench", "step", "batch_size=2", "repeats=1"), 0.1, runs="digits"),
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def heard():
    """SIGINT is heard, though whoever started the tests in the background had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def reproduction(tmp_path, monkeypatch):
    """Makes the toy protocol's anew, as a new process would see its folder."""
    monkeypatch.setattr(golden, "KEYS", [("cp", False), ("dense", False), ("tt", False)])
    monkeypatch.setattr(golden, "measured", lambda *key: golden.Golden(*key, (1.0, 0.5)))
    monkeypatch.setattr("tdcompress.bench.step.step_memory", lambda step: 1.0)  # by processes, in tests/bench
    return lambda *parts: Reproduction(Options(out=str(tmp_path), jobs=1), parts or TOY)


@pytest.mark.parametrize("key", golden.KEYS, ids=str)
def test_twenty_steps_lose_what_they_did(key):
    known = golden.read(PUBLISHED / "golden.csv")
    now = golden.measured(*key)
    assert now.agrees(known[key]), f"{now} was {known[key]}: what is published is of another version (reproduce.py)"


def test_losses_agree_to_two_per_cent():
    one = golden.Golden("tt", True, (2.165, 1.693))
    assert one.agrees(replace(one, losses=(2.167, 1.67))) and not one.agrees(replace(one, losses=(2.165, 1.73)))
    assert not one.agrees(None)


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_results(page):
    text = page.read_text()
    assert pages.filled(text, Published(PUBLISHED)) == text, "python scripts/reproduce.py makes them anew"


def test_every_table_is_on_a_page():
    shown = {name for page in pages.PAGES for _, name, _ in pages.BLOCK.findall(page.read_text())}
    assert shown == set(pages.TABLES)


def test_every_figure_of_the_pages_is_kept():
    for name in pages.figures(PUBLISHED):
        assert (PUBLISHED / "figures" / f"{name}.png").is_file(), name


@pytest.mark.parametrize("part", PROTOCOL, ids=lambda part: part.name)
def test_a_part_of_the_protocol_is_a_command(part, tdc):
    verb, *words = part.words
    if verb == "train":
        assert list(parsed(words).overrides) == words
    else:  # words are read in order, so a bad last one is told of only if the others are good
        code, _, err = tdc(" ".join([verb, *words, "repeats=0"]))
        assert code == 2 and err.startswith("tdc: repeats=0 ")
    assert part.minutes > 0 and part.what


@pytest.mark.usefixtures("heard")
def test_a_protocol_goes_on_where_it_was_and_publishes_each_run_as_it_ends(reproduction, tmp_path, monkeypatch, capsys):
    published: list[int] = []
    whole = Reproduction.publish

    def publish(self, without=()):
        whole(self, without)
        published.append(len(pandas.read_csv(tmp_path / "summary.csv")))
        if len(published) == 2:  # after its golden losses and a run
            os.kill(os.getpid(), signal.SIGINT)

    first = reproduction()
    assert [work.left for work in first.works] == [2, 2, 1, 1]
    monkeypatch.setattr(Reproduction, "publish", publish)
    first.forget_stale()
    with pytest.raises(KeyboardInterrupt):
        first.make()
    assert published == [0, 1]
    monkeypatch.setattr(Reproduction, "publish", whole)

    second = reproduction()
    assert [work.left for work in second.works] == [1, 1, 1, 1]
    second.make()
    runs = pandas.read_csv(tmp_path / "summary.csv")
    assert sorted(runs.method) == ["cp", "dense", "tt"]
    assert len(pandas.read_csv(tmp_path / "bench" / "infer.csv")) == 1
    (timed,) = pandas.read_csv(tmp_path / "bench" / "step.csv").itertuples()
    (run,) = runs[runs.method == "tt"].itertuples()
    assert (timed.run, timed.parameters) == (run.directory, run.parameters)
    assert len(pandas.read_csv(tmp_path / "parts.csv")) == 4
    assert reproduction().told().endswith("0 left, 0.0 hours")

    for directory in tmp_path.glob("runs/*/*/*"):  # a fresh clone has the tables alone
        for file in directory.rglob("*"):
            if file.is_file():
                file.unlink()
    assert sum(work.left for work in reproduction().works) == 0

    Path(tmp_path, "bench", "step.csv").unlink()
    for directory in tmp_path.glob("runs/*/*/tt*/*"):
        shutil.rmtree(directory)
    capsys.readouterr()
    reproduction().make()
    assert "is not here or has not ended" in capsys.readouterr().out
    assert sum(work.left for work in reproduction().works) == 1


def test_a_table_is_whole_with_one_seed_before_any_format_has_two(reproduction):
    sweep = replace(TOY[0], words=(*TOY[0].words, "seed=1,0"))
    jobs = reproduction(sweep).works[0].jobs
    assert [(job.config.seed, job.config.method.format) for job in jobs] == [
        (0, "dense"),
        (0, "tt"),
        (1, "dense"),
        (1, "tt"),
    ]


def test_runs_of_another_version_are_named_and_made_again(reproduction, tmp_path, capsys):
    first = reproduction(TOY[1])
    first.forget_stale()
    first.make()
    known = golden.read(tmp_path / "golden.csv")
    golden.write(tmp_path / "golden.csv", [replace(known["dense", False], losses=(1.0, 0.6)), known["cp", False]])
    capsys.readouterr()
    second = reproduction(TOY[1])
    second.forget_stale()
    told = capsys.readouterr().out
    assert "dense" in told and "made again" in told and "cp" not in told
    assert list(pandas.read_csv(tmp_path / "summary.csv").method) == ["cp"]
    assert [job.config.method.format for job in second.works[0].jobs] == ["dense"]
    assert golden.read(tmp_path / "golden.csv")["dense", False].agrees(known["dense", False])


def test_times_of_runs_that_are_made_again_go_with_them(reproduction, tmp_path, capsys):
    first = reproduction(TOY[0], TOY[3], TOY[2])
    first.forget_stale()
    first.make()
    known = golden.read(tmp_path / "golden.csv")
    golden.write(tmp_path / "golden.csv", [known["dense", False], replace(known["tt", False], losses=(1.0, 0.6))])
    second = reproduction(TOY[0], TOY[3], TOY[2])
    second.forget_stale()
    assert "step.csv is of such runs" in capsys.readouterr().out
    assert [work.left for work in second.works] == [1, 1, 0]


def test_a_run_that_has_not_ended_is_not_timed(reproduction, tmp_path, capsys):
    whole = reproduction(TOY[0], TOY[3])
    whole.make()
    Path(tmp_path, "bench", "step.csv").unlink()
    table = tmp_path / "summary.csv"
    table.write_text(table.read_text().replace("finished", "interrupted"))
    capsys.readouterr()
    again = reproduction(TOY[3])
    again.protocol = (TOY[0], TOY[3])
    again.make()
    assert "whose network is to be timed, is not here or has not ended" in capsys.readouterr().out
    assert not Path(tmp_path, "bench", "step.csv").exists()


def test_runs_on_other_images_are_not_taken_for_none(reproduction, tmp_path):
    whole = reproduction(TOY[0], TOY[1])
    whole.make()
    reproduction(TOY[0], TOY[1]).check()
    table = tmp_path / "parts.csv"
    before = table.read_text()
    table.write_text(before.replace("digits,False,runs/digits", "digits,False,runs/image_folder"))
    with pytest.raises(SystemExit, match=r"has digits of other images \(runs/image_folder"):
        reproduction(TOY[0], TOY[1]).check()
    assert "image_folder" in table.read_text() != before


def test_moved_losses_are_told_where_only_some_parts_are_looked_at(reproduction, tmp_path):
    golden.write(tmp_path / "golden.csv", [golden.Golden("tt", False, (1.0, 0.6))])
    some = reproduction(TOY[2])
    some.options = replace(some.options, only=("infer",))
    with pytest.raises(SystemExit, match="golden losses of tt have moved"):
        some.forget_stale()


def test_a_table_counts_by_hand(tmp_path):
    Path(tmp_path, "parts.csv").write_text(
        "part,alone,directory\nvgg16,False,runs/a\nvgg16,False,runs/b\nvgg16,False,runs/c\n"
    )
    row = "image_folder,vgg16,{},,{},{},finished,0.05,{},100,1000,{}"
    head = "dataset,arch,method,variant,rank,seed,status,lr,test_accuracy,macs,dense_macs,directory"
    rows = [row.format("tt", "10x", 0, 0.8, "runs/a"), row.format("tt", "10x", 1, 0.82, "runs/b")]
    rows += [row.format("tt", "5x", 0, 0.9, "runs/c"), row.format("tt", "10x", 2, 0.9, "runs/d")]
    Path(tmp_path, "summary.csv").write_text("\n".join([head, *rows]) + "\n")
    Path(tmp_path, "metrics.csv").write_text("directory,epoch\n")
    text = "a\n<!-- table: vgg16 -->\nold\n<!-- end -->\nb\n"
    table = pages.filled(text, Published(tmp_path)).splitlines()
    assert table[0] == "a" and table[-1] == "b" and "| tt | 81.0 ± 1.4 (2) |" in table[4]
    with pytest.raises(ValueError, match="part vgg16: tt at rank None are several runs of a seed"):
        Published(tmp_path).of("vgg16", "tt")


def test_how_far_seeds_are_apart_counts_by_hand(tmp_path):
    accuracies = {"tt": [0.80, 0.82], "cp": [0.50, 0.52, 0.54], "ht": [0.99]}  # variances 2 and 4, of one seed none
    rows = [
        f"{method},{seed},finished,{accuracy},runs/{method}/seed{seed}"
        for method, seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
    ]
    rows.append("tr,0,diverged,0.1,runs/tr/seed0")
    Path(tmp_path, "parts.csv").write_text(
        "part,alone,directory\n" + "".join(f"lstm,False,{row.rsplit(',', 1)[1]}\n" for row in rows)
    )
    Path(tmp_path, "summary.csv").write_text("\n".join(["method,seed,status,test_accuracy,directory", *rows]) + "\n")
    Path(tmp_path, "metrics.csv").write_text("directory,epoch\n")
    table = pages.filled("<!-- table: noise -->\n<!-- end -->\n", Published(tmp_path)).splitlines()
    assert table[3:-1] == ["| an LSTM on MNIST | 2 | 1.73 | 4.90 | 2.83 |"]


def test_a_speed_up_is_said_with_its_quartiles_where_they_are_known():
    rows = pandas.DataFrame({"speedup": [1.174, 2.0], "speedup_low": [1.1, 1.0], "speedup_high": [1.206, 3.0]})
    assert speed(rows) == "1.17 (1.10 to 1.21)"
    assert speed(rows[["speedup"]]) == "1.17" == speed(rows.assign(speedup_low=math.nan))
    assert speed(rows[:0]) == "–"  # noqa: RUF001


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.8234], "82.3 (1)"),
        ([0.8, 0.82], "81.0 ± 1.4 (2)"),
        ([0.8461, 0.8469, 0.8465], "84.65 ± 0.04 (3)"),  # never "± 0.0", which says that seeds are alike
        ([0.9957, 0.9958], "99.58 ± 0.01 (2)"),
        ([], "–"),  # noqa: RUF001
    ],
)
def test_an_accuracy_has_as_many_digits_as_it_needs(values, said):
    assert accuracy(pandas.DataFrame({"test_accuracy": values})) == said
