"""One process works on a run, and those that only look are not in its way."""

import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest
from runs import write_run

from tdcompress.device.files import RunError
from tdcompress.results.rows import read_runs
from tdcompress.results.run import Run


def hold(directory):
    """A process that owns the run until its input closes."""
    code = """if True:
        import sys
        from tdcompress.results.run import Run
        with Run(sys.argv[1]).locked():
            print("own", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen([sys.executable, "-c", code, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"own\n"
    return process


def test_a_second_process_is_told_so_and_a_killed_one_frees_the_run(tmp_path):
    directory = tmp_path / "runs/mnist/vgg16/tt-8/seed0"
    write_run(directory, status="running")
    owner = hold(directory)
    try:
        assert read_runs(tmp_path).status.tolist() == ["running"]
        with pytest.raises(RunError, match="another process works on"), Run(directory).locked():
            pass
        with pytest.raises(RunError, match="another process works on"):
            Run(directory).refuse_busy()
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    assert read_runs(tmp_path).status.tolist() == ["interrupted"]
    with Run(directory, {".hydra/config.yaml": "lr: 0.1\n"}).locked():
        assert (directory / ".hydra/config.yaml").read_text() == "lr: 0.1\n"


def test_a_reader_of_images_does_not_own_the_run_that_forked_it(tmp_path):
    into, out = os.pipe()
    with Run(tmp_path).locked():
        reader = os.fork()
        if not reader:
            os.write(out, b".")
            signal.pause()
    try:
        os.read(into, 1)
        Run(tmp_path).refuse_busy()
        with Run(tmp_path).locked():
            pass
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        os.close(into)
        os.close(out)


def test_reading_the_results_does_not_turn_a_starting_run_away(tmp_path):
    with open(tmp_path / "lock", "w") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        threading.Timer(0.15, fcntl.flock, (reader, fcntl.LOCK_UN)).start()
        with Run(tmp_path).locked():
            pass


def test_where_a_lock_cannot_be_looked_at_a_run_is_what_it_says(tmp_path, monkeypatch):
    for seed, status in enumerate(("running", "finished", "interrupted")):
        write_run(tmp_path / f"runs/mnist/lenet/tt-8/seed{seed}", status=status)
    (tmp_path / "runs/mnist/lenet/tt-8/seed9").mkdir()
    monkeypatch.setattr("tdcompress.results.rows.held", lambda directory: None)
    assert read_runs(tmp_path).status.tolist() == ["running", "finished", "interrupted", "broken"]
