"""The `bullet` command of the wheel: exit codes, output, pipes and Ctrl-C are those of the binary."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import bullet_core as bc

#: Beside the interpreter, or where `pip install --target` puts programs.
PLACES = [pathlib.Path(sys.executable).parent, pathlib.Path(bc.__file__).parents[1] / "bin"]
SCRIPT = next((place / "bullet" for place in PLACES if (place / "bullet").is_file()), "bullet")
SIZES = ["dim=16", "layers=1", "heads=2", "ff=16", "seq=8", "tokenizer.kind=char", "batch_size=2"]
SMALL = [word for size in SIZES for word in ("--set", size)] + ["--device", "cpu"]


def bullet(*args, module=False, **options):
    command = [sys.executable, "-m", "bullet_core"] if module else [str(SCRIPT)]
    return subprocess.run([*command, *map(str, args)], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("module", [False, True])
def test_help_version_and_mistakes(module):
    done = bullet("--version", module=module)
    assert (done.returncode, done.stdout) == (0, f"bullet {bc.__version__}\n")
    done = bullet("--help", module=module)
    assert done.returncode == 0 and "train" in done.stdout and done.stderr == ""
    done = bullet("trian", module=module)
    assert done.returncode == 2 and done.stdout == "" and "train" in done.stderr
    done = bullet("info", "none.bullet", module=module)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "none.bullet" in done.stderr


def test_a_run_and_what_python_makes_of_it(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, " * 60)
    done = bullet("train", "--data", "text.txt", "--out", "runs/x", "--steps", 4, "--json", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    model = bc.load(tmp_path / "runs/x/last.bullet")
    written = bullet("generate", "runs/x/last.bullet", "--prompt", "to", "--max-tokens", 9, "--temperature", 0, cwd=tmp_path)
    assert written.returncode == 0 and model.text("to", 9, temperature=0) in written.stdout
    # And the other way round.
    model.save(tmp_path / "mine.bullet")
    again = bullet("generate", "mine.bullet", "--prompt", "to", "--max-tokens", 9, "--temperature", 0, cwd=tmp_path)
    assert again.stdout == written.stdout
    trainer = bc.Trainer(model, data=lambda step: [[[1, 2, 3]], [[2, 3, 1]]], steps=2, checkpoint=tmp_path / "trained.bullet")
    trainer.fit()
    assert bullet("info", "trained.bullet", cwd=tmp_path).returncode == 0
    assert bullet("generate", "trained.bullet", "--prompt", "to", "--max-tokens", 2, cwd=tmp_path).returncode == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    tokenizer = bc.Tokenizer.train("abc", "char")
    bc.Transformer(tokenizer, dim=16, layers=1, heads=2, max_seq=8).save(tmp_path / "m.bullet")
    command = f"'{SCRIPT}' generate m.bullet --prompt a --max-tokens 20000; echo $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | head -c 3"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert len(done.stdout) == 3 and done.stderr.split()[-1] == "0", done.stderr


def test_ctrl_c_saves(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, " * 60)
    command = [str(SCRIPT), "train", "--data", "text.txt", "--out", "runs/x", "--steps", "1000000", *SMALL]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step "):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped at step" in err
    assert bc.load(tmp_path / "runs/x/last.bullet").vocab > 3
