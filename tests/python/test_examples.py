"""Every example runs, with few steps, and says something."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = sorted([*FOLDER.joinpath("python").glob("*.py"), FOLDER / "kernels" / "run.py"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, tmp_path):
    done = subprocess.run(
        [sys.executable, str(example), "--quick"], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


NOTEBOOKS = sorted(FOLDER.joinpath("python").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook, tmp_path):
    """Its cells run one after the other, drawing included."""
    pytest.importorskip("matplotlib")
    cells = json.loads(notebook.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells), "clear the outputs before committing"
    script = tmp_path / "notebook.py"
    script.write_text("\n".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code"))
    environment = {**os.environ, "QUICK": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "ROMEO" in done.stdout
