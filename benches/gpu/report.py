"""Joins what run_on_gpu.sh left in a folder into report.json: usage report.py FOLDER PASSED FAILED."""

import json
import pathlib
import subprocess
import sys
import time

folder = pathlib.Path(sys.argv[1])
query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
device, driver = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()[0].split(", ")
rows = []
for name in ("bullet.jsonl", "start.jsonl", "peers.jsonl"):
    path = folder / name
    if path.exists():
        rows += [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
report = {
    "date": time.strftime("%Y-%m-%d"),
    "device": device,
    "driver": driver,
    "passed": int(sys.argv[2]),
    "failed": int(sys.argv[3]),
    "rows": rows,
}
(folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
