"""What a user installs: the wheel, with conf/, working from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_wheel_works_from_another_folder(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("tdcompress-*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    shipped = {path.relative_to(site / "tdcompress" / "conf") for path in site.glob("tdcompress/conf/**/*.yaml")}
    assert shipped == {path.relative_to(ROOT / "conf") for path in ROOT.glob("conf/**/*.yaml")}
    assert {path.relative_to(site) for path in site.glob("tdcompress/**/*.py")} == {
        path.relative_to(ROOT) for path in ROOT.glob("tdcompress/**/*.py")
    }

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import tdcompress.cli as c; "
        f"assert c.__file__.startswith({str(site)!r}); c.main(['train', 'method=ht', '--cfg', 'job'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert "format: ht" in done.stdout and "_target_: torch.optim.SGD" in done.stdout
    assert not any(elsewhere.iterdir())


def test_the_script_draws_as_the_verb_does(tmp_path):
    script = [sys.executable, str(ROOT / "scripts" / "plot_figures.py"), f"results_dir={tmp_path}"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("tdc: no finished runs")
