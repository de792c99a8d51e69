"""Joins what run_on_gpu.sh left in a folder into report.json there: python report.py FOLDER PASSED FAILED."""

import json
import pathlib
import subprocess
import sys
import time


def gpu():
    """Name and driver of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    name, driver = lines[0].split(", ")
    return name, driver


def rows(path):
    """The JSON objects of a benchmark's output; none if it did not run."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{")]


def main():
    """Writes the report."""
    folder, passed, failed = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    device, driver = gpu()
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "device": device,
        "driver": driver,
        "passed": passed,
        "failed": failed,
        "rows": [row for name in ("bullet", "start", "python", "kernels", "peers") for row in rows(folder / f"{name}.jsonl")],
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
