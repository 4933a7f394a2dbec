"""The directory of a run: whose it is, and what cannot be written there is told in one line."""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from runs import BASELINE, row, write_run

from tdcompress.device.files import RunError
from tdcompress.results.identity import plain
from tdcompress.results.record import Summary
from tdcompress.results.run import Run


def test_another_configuration_in_the_directory_is_refused(tmp_path):
    run = write_run(tmp_path / "runs/mnist/vgg16/tt-8/seed0", config=plain(BASELINE))
    assert run.ended(BASELINE).status == "finished"
    with pytest.raises(RunError, match=r"another configuration \(lr: 0.05 there, 0.1 asked\)"):
        run.ended(replace(BASELINE, lr=0.1))


def test_a_results_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(RunError, match="cannot make"), Run(tmp_path / "results/runs/a/b/c/seed0").locked():
        pass


@pytest.mark.parametrize("name", ["lock", "metrics.csv", "summary.json", ".hydra/config.yaml"])
def test_a_folder_where_a_file_should_be(tmp_path, name):
    (tmp_path / name / "mine").mkdir(parents=True)
    run = Run(tmp_path, {".hydra/config.yaml": "lr: 0.1\n"})
    with pytest.raises(RunError, match=r"cannot (make|write) .*: Is a directory") as error, run.locked():  # noqa: PT012
        run.write_metrics([row(1)])
        run.write_summary(Summary())
    assert "\n" not in str(error.value)
    assert (tmp_path / name / "mine").is_dir()
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def nobody():
    """Work without root's right to write everywhere, in a folder that everyone may read."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        if root:
            os.seteuid(65534)
        yield Path(folder)
        if root:
            os.seteuid(0)
        os.chmod(folder, 0o755)


def test_without_permission_to_write(nobody):
    with pytest.raises(RunError, match=r"cannot make .*: Permission denied; .*give permission"), Run(nobody).locked():
        pass
    with pytest.raises(RunError, match=r"cannot write .*summary\.json: Permission denied"):
        Run(nobody).write_summary(Summary())
    assert not list(nobody.iterdir())


def test_reading_results_needs_no_torch():
    code = "import sys, tdcompress.results.run; print({'torch', 'pandas', 'omegaconf'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
