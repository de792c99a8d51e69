#!/bin/bash
# Tests and times Bullet on this machine's GPU; made by `cargo xtask gpu-bundle`. Needs the NVIDIA driver and NVRTC
# (pip install nvidia-cuda-nvrtc), and for the peers a Python with PyTorch, JAX and CuPy. docs/gpu-testing.md says more.
#
# usage: run_on_gpu.sh [--tests] [--tiers "TIER ..."] [--benches] [--sanitize] [--peers SECTION,..|all] [--out FOLDER]
#   Without options: tests and benchmarks. Ends with a line `N passed, N failed`; leaves report.json and logs in FOLDER.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=$here/report; tests=0; benches=0; sanitize=0; peers=""; tiers=""
while [ $# -gt 0 ]; do
    case $1 in
        --tests) tests=1 ;;
        --benches) benches=1 ;;
        --sanitize) sanitize=1 ;;
        --tiers) tiers=$2; shift ;;
        --peers) peers=$2; shift ;;
        --out) out=$2; shift ;;
        *) echo "run_on_gpu.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
[ $tests$benches$sanitize = 000 ] && [ -z "$peers" ] && { tests=1; benches=1; }
mkdir -p "$out"
passed=0; failed=0

# Runs one test program, in poisoned memory, and adds up its counts: run NAME COMMAND...
run() {
    local name=$1 log="$out/$1.log" begun=$SECONDS code
    shift
    BULLET_POISON=1 "$@" > "$log" 2>&1; code=$?
    local p f
    p=$(grep -oE '[0-9]+ passed' "$log" | awk '{s += $1} END {print s + 0}')
    f=$(grep -oE '[0-9]+ failed' "$log" | awk '{s += $1} END {print s + 0}')
    # A program that dies without a count has failed too.
    if [ $code -ne 0 ] && [ "$f" = 0 ]; then f=1; fi
    passed=$((passed + p)); failed=$((failed + f))
    echo "$name: $p passed, $f failed ($((SECONDS - begun)) s)"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null
devices=$("$here/bullet" devices)
echo "$devices"
# Tests skip what they find no GPU for, so the first has to be one that can be used.
own=$(awk '/^cuda:/ { gpu += 1 } gpu == 1 && $1 == "tier" { sub(",", "", $2); tier = $2 }
    gpu == 1 && $1 == "not" { tier = "" } END { print tier }' <<< "$devices")
case $own in
    sm_90a) all="sm_90a sm_80 sm_35" ;;
    sm_35) all="sm_35" ;;
    sm_*) all="$own sm_35" ;;
    *) echo "run_on_gpu.sh: no GPU that can be used" >&2; exit 1 ;;
esac
export BULLET_TEST_DEVICES=${BULLET_TEST_DEVICES:-cuda:0}
# Faults of indices are reported by the device as a whole, so one test at a time.
export RUST_TEST_THREADS=1
if [ $tests = 1 ]; then
    for tier in ${tiers:-$all}; do
        for program in "$here"/tests/*; do
            BULLET_TIER=$tier run "$(basename "$program")-$tier" "$program"
        done
    done
    # As on a device so full that no op has room for its workspace.
    for way in parts cpu; do
        BULLET_RESCUE=$way run "conformance-$way" "$here/tests/tensor-conformance"
    done
fi
if [ $sanitize = 1 ]; then
    for tool in memcheck racecheck; do
        for program in "$here"/tests/kernels-cuda_*; do
            run "$(basename "$program")-$tool" compute-sanitizer --tool $tool --error-exitcode 9 "$program"
        done
    done
fi
if [ $benches = 1 ]; then
    "$here/bullet-bench-gpu" 2> "$out/bench.err" | tee "$out/bullet.jsonl"
    # The second start finds everything compiled.
    "$here/bullet-bench-gpu" start 2>> "$out/bench.err" | tee "$out/start.jsonl"
fi
if [ -n "$peers" ]; then
    [ "$peers" = all ] && peers=""
    # shellcheck disable=SC2086  # Each section is a word.
    python3 "$here/peers.py" ${peers//,/ } 2> "$out/peers.err" | tee "$out/peers.jsonl"
fi
python3 "$here/report.py" "$out" $passed $failed || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ $failed = 0 ]
