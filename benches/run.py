"""Times training workers side by side on one machine: one harness for Bullet and its peers.

    python run.py [options] WORKER...        WORKER: a peer's name (see PEERS) or NAME=COMMAND

Workers are long-lived processes that take turns: each gets a slice of about a second, round after round, so that a
drift of the machine hits all alike. A slice counts only if the other processes of the machine used almost no CPU
meanwhile (an OpenMP program that loses one of two cores slows down fourfold). Ratios are to the first worker named.
A worker whose losses differ from the reference is an error: a wrong step is not timed. README.md has the protocol.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
TOKENS_PER_STEP = 16 * 64
# Loss by number of steps done, in fp32, from the data of make_data.py. PyTorch, JAX and candle agree to 1e-5.
REFERENCE_LOSSES = {1: 8.02938, 8: 7.73967, 13: 7.27040}
# bf16 arithmetic rounds to 8 bits; its losses follow the reference only this far.
FP32_LOSS_TOLERANCE, BF16_LOSS_TOLERANCE = 1e-3, 5e-2
# The longest any one answer may take: torch.compile on one core needs minutes for its first.
REPLY_LIMIT_SECONDS = 900
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def peers(data):
    """The peers that can be named: name -> (command, tolerance of its losses)."""
    torch = [sys.executable, str(HERE / "peers/torch_worker.py"), data]
    python = [sys.executable, str(HERE / "peers/bullet_python_worker.py"), data]
    target = pathlib.Path(os.environ.get("CANDLE_TARGET_DIR", HERE / "peers/candle/target"))
    return {
        "torch-eager": (torch, FP32_LOSS_TOLERANCE),
        "torch-compile": ([*torch, "--compile"], FP32_LOSS_TOLERANCE),
        "torch-eager-bf16": ([*torch, "--bf16"], BF16_LOSS_TOLERANCE),
        "torch-compile-bf16": ([*torch, "--compile", "--bf16"], BF16_LOSS_TOLERANCE),
        "jax": ([sys.executable, str(HERE / "peers/jax_worker.py"), data], FP32_LOSS_TOLERANCE),
        "bullet-python": (python, FP32_LOSS_TOLERANCE),
        "bullet-python-loop": ([*python, "--loop"], FP32_LOSS_TOLERANCE),
        "numpy": ([sys.executable, str(HERE / "peers/numpy_worker.py"), data], FP32_LOSS_TOLERANCE),
        "candle": ([str(target / "release/candle-worker"), data], FP32_LOSS_TOLERANCE),
    }


class WorkerError(Exception):
    """A worker that did not start, died, or computed something else than the reference."""


class Worker:
    """One process that trains, and what was measured of it."""

    def __init__(self, name, command, loss_tolerance, threads):
        self.name = name
        self.loss_tolerance = loss_tolerance
        self.losses = {}
        self.slices = []  # kept slices: milliseconds of each step
        self.slices_run = 0
        self.generation = []  # kept tokens per second
        self.stderr = tempfile.TemporaryFile(mode="w+")
        start = time.perf_counter()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.stderr,
                text=True,
                env=environment(threads),
                preexec_fn=lambda: os.sched_setaffinity(0, cpus(threads)),
                start_new_session=True,  # own process group: its helpers' CPU time is its own
            )
        except OSError as error:
            raise WorkerError(f"{name}: cannot start `{command[0]}`: {error.strerror}. Is it built?") from error
        ready = self.read()
        self.first_step_seconds = time.perf_counter() - start
        self.reported_name = ready["ready"]
        self.check_loss(1, ready["first_loss"])

    def read(self):
        """The next answer."""
        timer = threading.Timer(REPLY_LIMIT_SECONDS, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            code = self.process.wait()
            self.stderr.seek(0)
            tail = "".join(self.stderr.readlines()[-15:])
            raise WorkerError(f"{self.name}: the worker ended (exit status {code}) instead of answering\n{tail}")
        return json.loads(line)

    def ask(self, request):
        """Sends one request, a number of steps or `gen`, and waits for the answer."""
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        return self.read()

    def warm_up(self):
        """Runs to the last reference step, comparing losses on the way, and picks the steps of a slice."""
        times, done = [], 1
        for target in sorted(REFERENCE_LOSSES):
            if target > done:
                answer = self.ask(target - done)
                times, done = times + answer["ms"], answer["i"]
                self.check_loss(done, answer["loss"])
        self.step_ms = statistics.median(times)

    def check_loss(self, step, loss):
        """Compares one loss to the reference."""
        self.losses[step] = loss
        expected = REFERENCE_LOSSES[step]
        if not abs(loss - expected) <= self.loss_tolerance:
            raise WorkerError(
                f"{self.name}: loss {loss:.5f} after {step} steps, expected {expected:.5f} within "
                f"{self.loss_tolerance}: the worker trains another model, or has a wrong gradient"
            )

    def stop(self):
        """Ends the process: closing its input asks it to."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def peak_rss_mib(self):
        """The most memory the process ever held (VmHWM), without that of its children."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    def cpu_ticks(self):
        """CPU time used so far by the worker's process group."""
        return sum(ticks for group, ticks in process_ticks() if group == self.process.pid)


def environment(threads):
    """This environment with the thread count in every variable that some worker reads."""
    names = ["BENCH", "BULLET", "OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "RAYON_NUM"]
    return dict(os.environ, **{f"{name}_THREADS": str(threads) for name in names})


def cpus(threads):
    """The first `threads` CPUs this process may use."""
    return set(sorted(os.sched_getaffinity(0))[:threads])


def process_ticks():
    """(process group, ticks used) of every process."""
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended meanwhile
            continue
        yield int(fields[2]), int(fields[11]) + int(fields[12])


def busy_ticks():
    """Ticks that all CPUs together spent on anything: user, nice, system, interrupts and steal, not idle or I/O wait."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return user + nice + system + irq + softirq + steal


class OthersShare:
    """A `with` block that measures the share of the machine's CPUs that processes other than `worker` used in it."""

    def __init__(self, worker=None):
        self.worker = worker

    def foreign_ticks(self):
        """Busy ticks that are not the worker's."""
        return busy_ticks() - (self.worker.cpu_ticks() if self.worker else 0)

    def __enter__(self):
        self.ticks, self.start = self.foreign_ticks(), time.perf_counter()
        return self

    def __exit__(self, *_):
        elapsed = time.perf_counter() - self.start
        self.share = (self.foreign_ticks() - self.ticks) / TICKS_PER_SECOND / elapsed / os.cpu_count()


def wait_for_quiet(tolerance, limit_seconds):
    """Waits until the machine is idle; False if it was not within the limit."""
    deadline = time.perf_counter() + limit_seconds
    while time.perf_counter() < deadline:
        with OthersShare() as others:
            time.sleep(0.3)
        if others.share < tolerance:
            return True
    return False


def measure(workers, args):
    """Gives the workers slices in turn until each has `args.rounds` quiet ones or the time is up."""
    deadline = time.perf_counter() + args.max_wait
    order = list(workers)
    while any(len(worker.slices) < args.rounds for worker in workers) and time.perf_counter() < deadline:
        for worker in order:
            if not wait_for_quiet(args.tolerance, deadline - time.perf_counter()):
                break
            steps = max(1, round(args.slice * 1e3 / worker.step_ms))
            with OthersShare(worker) as others:
                answer = worker.ask(steps)
            worker.slices_run += 1
            worker.step_ms = statistics.median(answer["ms"])
            if others.share < args.tolerance:
                worker.slices.append(answer["ms"])
            if args.gen and wait_for_quiet(args.tolerance, deadline - time.perf_counter()):
                with OthersShare(worker) as others:
                    speed = worker.ask("gen").get("gen_tok_s")
                if speed and others.share < args.tolerance:
                    worker.generation.append(speed)
        order.reverse()  # no worker always runs after the same other


def summary(worker, base_ms):
    """What the report says of one worker; times in milliseconds a step. The median is that of the slices' medians."""
    medians = [statistics.median(times) for times in worker.slices]
    median = statistics.median(medians) if medians else None
    return {
        "worker": worker.reported_name,
        "median_ms": median,
        "min_ms": min(map(min, worker.slices), default=None),
        "ratio_to_first": median / base_ms if median and base_ms else None,
        "tokens_per_s": TOKENS_PER_STEP / median * 1e3 if median else None,
        "slice_medians_ms": medians,
        "slices_run": worker.slices_run,
        "first_step_seconds": worker.first_step_seconds,
        "peak_rss_mib": worker.peak_rss_mib(),
        "generation_tokens_per_s": statistics.median(worker.generation) if worker.generation else None,
        "loss_after_steps": worker.losses,
    }


def cpu_model():
    """The processor's name, from /proc/cpuinfo."""
    found = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def commit():
    """The commit of the checkout, with `-dirty` if tracked files differ from it."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(HERE), *arguments], capture_output=True, text=True)
        return done.stdout.strip()

    head = git("rev-parse", "HEAD") or "unknown"
    return head + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def report(workers, args):
    """Everything measured, as the JSON result holds it."""
    base = workers[0].slices
    base_ms = statistics.median(map(statistics.median, base)) if base else None
    return {
        "what": "training step of the reference model (forward, backward, AdamW, loss read back)",
        "date": datetime.date.today().isoformat(),
        "device": f"{cpu_model()}, {os.cpu_count()} CPUs",
        "threads": args.threads,
        "commit": commit(),
        "system": platform.platform(),
        "rounds": args.rounds,
        "slice_seconds": args.slice,
        "others_share_limit": args.tolerance,
        "workers": {worker.name: summary(worker, base_ms) for worker in workers},
    }


def show(number, digits=1):
    """A number for the table, or a dash."""
    return "-" if number is None else f"{number:,.{digits}f}"


def print_table(result):
    """The report as a table."""
    heads = ["median ms", "min ms", "ratio", "tokens/s", "slices", "1st step s", "peak MiB", "gen tok/s"]
    print(f"\n{result['device']}, {result['threads']} threads, {result['date']}")
    print(f"{'worker':20}" + "".join(f"{head:>12}" for head in heads))
    for name, row in result["workers"].items():
        cells = [
            show(row["median_ms"], 2),
            show(row["min_ms"], 2),
            show(row["ratio_to_first"], 2),
            show(row["tokens_per_s"], 0),
            f"{len(row['slice_medians_ms'])}/{row['slices_run']}",
            show(row["first_step_seconds"], 2),
            show(row["peak_rss_mib"], 0),
            show(row["generation_tokens_per_s"], 0),
        ]
        print(f"{name:20}" + "".join(f"{cell:>12}" for cell in cells))


def save(result, out):
    """Writes the result, by default under results/ with date, processor and threads in its name."""
    if out is None:
        slug = re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-")
        out = HERE / "results" / f"train-{result['date']}-{slug}-{result['threads']}t.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten: {out}")


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workers", nargs="+", metavar="WORKER")
    parser.add_argument("-r", "--rounds", type=int, default=7, help="quiet slices wanted of each worker (7)")
    parser.add_argument("-s", "--slice", type=float, default=1.0, help="seconds a slice (1)")
    parser.add_argument(
        "-t", "--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every worker (all CPUs)"
    )
    parser.add_argument("--gen", action="store_true", help="also time generation, where a worker can")
    parser.add_argument("--tolerance", type=float, default=0.04, help="CPU share of others that is still quiet (0.04)")
    parser.add_argument("--max-wait", type=float, default=900, help="seconds until what was measured is all (900)")
    parser.add_argument("--data", default=str(HERE / "micro.safetensors"), help="file of make_data.py")
    parser.add_argument("--out", type=pathlib.Path, help="where the JSON result goes (default: under results/)")
    parser.add_argument("--no-save", action="store_true", help="only print")
    return parser.parse_args()


def resolve(text, data):
    """The name, command and loss tolerance of a WORKER argument."""
    known = peers(data)
    if text in known:
        return text, *known[text]
    name, equals, command = text.partition("=")
    if not equals or not command.strip():
        raise WorkerError(f"no worker `{text}`: give NAME=COMMAND, or one of {', '.join(known)}")
    return name, shlex.split(command), FP32_LOSS_TOLERANCE


def run(args):
    """Starts the workers one by one, measures, reports. Returns the process's exit status."""
    if not pathlib.Path(args.data).exists():
        raise WorkerError(f"no data file {args.data}: run make_data.py first")
    chosen = [resolve(text, args.data) for text in args.workers]
    workers = []
    try:
        for name, command, tolerance in chosen:
            worker = Worker(name, command, tolerance, args.threads)
            workers.append(worker)
            worker.warm_up()
            print(f"{name}: {worker.reported_name}, first step after {worker.first_step_seconds:.2f} s", flush=True)
        measure(workers, args)
        result = report(workers, args)
    finally:
        for worker in workers:
            worker.stop()
    print_table(result)
    if short := [worker.name for worker in workers if len(worker.slices) < args.rounds]:
        print(f"\nThe machine was too busy: fewer than {args.rounds} quiet slices of {', '.join(short)}.")
        print("Stop other programs, raise --max-wait, or raise --tolerance and trust the numbers less.")
        return 1
    if not args.no_save:
        save(result, args.out)
    return 0


def main():
    """Runs, and turns a worker's failure into one message."""
    if not pathlib.Path("/proc/stat").exists():
        sys.exit("run.py: needs Linux: it reads /proc to tell quiet slices from disturbed ones")
    try:
        sys.exit(run(parse_arguments()))
    except WorkerError as error:
        sys.exit(f"run.py: {error}")


if __name__ == "__main__":
    main()
