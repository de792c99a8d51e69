#!/bin/bash
# Tests and times Bullet on this machine's GPU; made by `cargo xtask gpu-bundle`. Needs the NVIDIA driver and NVRTC
# (pip install nvidia-cuda-nvrtc), and for the peers a Python with PyTorch, JAX and CuPy. docs/gpu-testing.md says more.
#
# usage: run_on_gpu.sh [--tests] [--tiers "TIER ..."] [--python] [--benches] [--sanitize] [--peers SECTION,..|all] [--jobs N]
#                      [--out FOLDER]
#   Without options: tests, also of the Python package, and benchmarks. Ends with a line `N passed, N failed`; leaves report.json and logs in FOLDER.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=$here/report; tests=0; python=0; benches=0; sanitize=0; peers=""; tiers=""
jobs=$(nproc)
while [ $# -gt 0 ]; do
    case $1 in
        --tests) tests=1 ;;
        --python) python=1 ;;
        --benches) benches=1 ;;
        --sanitize) sanitize=1 ;;
        --tiers) tiers=$2; shift ;;
        --peers) peers=$2; shift ;;
        --jobs) jobs=$2; shift ;;
        --out) out=$2; shift ;;
        *) echo "run_on_gpu.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
[ $tests$python$benches$sanitize = 0000 ] && [ -z "$peers" ] && { tests=1; python=1; benches=1; }
mkdir -p "$out"
passed=0; failed=0
# The tests to run, one a line: GROUP PROGRAM TEST COMMAND-PREFIX...
list=$out/tests.list; : > "$list"

# Puts all tests of a program on the list: add GROUP PROGRAM [COMMAND-PREFIX...]
add() {
    local group=$1 program=$2 test
    shift 2
    "$program" --list 2> /dev/null | sed -n 's/: test$//p' | while read -r test; do
        echo "$group $program $test $*" >> "$list"
    done
}

# Runs one test of the list and leaves GROUP-TEST.log; says what failed.
run_one() {
    local group=$1 program=$2 test=$3 log code
    shift 3
    log=$out/$group-${test//::/.}.log
    timeout 900 "$@" "$program" --exact "$test" --nocapture > "$log" 2>&1; code=$?
    # A test that was not run must not count as passed.
    if [ $code = 0 ] && grep -q '^test result: ok. 1 passed' "$log"; then
        echo "$group passed" >> "$out/results"
    else
        echo "$group failed" >> "$out/results"
        echo "FAILED $group $test (exit code $code): $log"
    fi
}

# Runs the list, each test in a process of its own: a fault of one cannot harm another, and NVRTC, which compiles one unit
# at a time in a process, uses all cores.
run_list() {
    local group p f
    : > "$out/results"
    export -f run_one; export out
    export BULLET_POISON=1
    xargs -P "$jobs" -L 1 bash -c 'run_one "$@"' run_one < "$list"
    export -n BULLET_POISON
    for group in $(awk '!seen[$1]++ { print $1 }' "$list"); do
        p=$(grep -c "^$group passed$" "$out/results"); f=$(grep -c "^$group failed$" "$out/results")
        passed=$((passed + p)); failed=$((failed + f))
        echo "$group: $p passed, $f failed"
    done
}

[ -x "$here/bullet" ] || tar -C "$here" -xzf "$here/programs.tar.gz"
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
if [ $tests = 1 ]; then
    for tier in ${tiers:-$all}; do
        for program in "$here"/tests/*; do
            # What the kernel language makes is the same for each.
            [ -f "$program" ] && [ "$(basename "$program")" != launch-unit ] || continue
            add "$(basename "$program")-$tier" "$program" env BULLET_TIER="$tier"
        done
    done
    # Random kernels, 960 of them: a process compiles one after the other.
    for part in $(seq 0 15); do
        add "launch-$part" "$here/tests/launch-unit" env BULLET_LANG_SEED=$((1 + 60 * part)) BULLET_LANG_KERNELS=60
    done
    # As on a device so full that no op has room for its workspace.
    for way in parts cpu; do
        add "conformance-$way" "$here/tests/tensor-conformance" env BULLET_RESCUE=$way
    done
fi
if [ $sanitize = 1 ]; then
    add kernels-memcheck "$here/tests/kernels-cuda" compute-sanitizer --tool memcheck --error-exitcode 9
    # racecheck does not understand how cuBLAS's kernels wait. Each part of a test of products is a process.
    add kernels-racecheck "$here/tests/kernels-cuda" \
        env BULLET_CUBLASLT=0 compute-sanitizer --tool racecheck --error-exitcode 9
    awk '$1 == "kernels-racecheck" && $3 ~ /^gemm::/ {
        for (i = 0; i < 16; i++) { line = $0; sub("kernels-racecheck", "kernels-racecheck-" i, line)
            sub(" env ", " env BULLET_TEST_SLICE=" i "/16 ", line); print line }; next } { print }' "$list" > "$list.parts"
    mv "$list.parts" "$list"
fi
[ -s "$list" ] && run_list
# The last line of pytest's output, counted: count_pytest NAME LOG.
count_pytest() {
    local line p f
    line=$(tail -n 1 "$2")
    p=$(grep -o '[0-9]* passed' <<< "$line" | cut -d' ' -f1); f=$(grep -oE '[0-9]+ (failed|error)' <<< "$line" | cut -d' ' -f1)
    f=$(awk '{ sum += $1 } END { print sum + 0 }' <<< "$f")
    # What ends without a count did not run.
    [ -z "$p" ] && { p=0; f=$((f + 1)); echo "FAILED $1: $2"; }
    passed=$((passed + p)); failed=$((failed + f))
    echo "$1: $p passed, $f failed"
}
if [ $python = 1 ] || [ $benches = 1 ]; then
    python3 -m pip install --quiet --no-index --no-deps --upgrade --target "$out/site" "$here"/bullet_core-*.whl
fi
if [ $python = 1 ]; then
    log=$out/python.log
    PYTHONPATH=$out/site python3 -m pytest -q -p no:cacheprovider "$here/tests/python" > "$log" 2>&1
    count_pytest python "$log"
    # Kernels, where nothing says on which device arrays are made.
    log=$out/python-kernels.log
    BULLET_DEVICE=cuda:0 PYTHONPATH=$out/site python3 -m pytest -q -p no:cacheprovider "$here"/tests/python/test_lang*.py > "$log" 2>&1
    count_pytest python-kernels "$log"
    log=$out/examples-kernels.log
    if PYTHONPATH=$out/site python3 "$here/examples/kernels/run.py" > "$log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "FAILED examples/kernels/run.py: $log"
    fi
    cat "$log"
    # The array API's own tests, of a checkout that is patched as docs/array-api.md says.
    if [ -d "$here/array-api-tests" ]; then
        log=$out/array-api.log
        (cd "$here/array-api-tests" && PYTHONPATH=$out/site BULLET_DEVICE=cuda:0 ARRAY_API_TESTS_MODULE=bullet_core \
            ARRAY_API_TESTS_VERSION=2024.12 ARRAY_API_TESTS_SKIP_DTYPES=complex64,complex128 \
            python3 -m pytest array_api_tests -q -p no:cacheprovider -n "$jobs" -W ignore --tb=short --disable-deadline \
            --max-examples 30 "--skips-file=$here/tests/array_api/skips.txt" \
            "--xfails-file=$here/tests/array_api/xfails.txt") > "$log" 2>&1
        count_pytest array-api-cuda:0 "$log"
    fi
fi
if [ $benches = 1 ]; then
    "$here/bullet-bench-gpu" 2> "$out/bench.err" | tee "$out/bullet.jsonl"
    # The second start finds everything compiled.
    "$here/bullet-bench-gpu" start 2>> "$out/bench.err" | tee "$out/start.jsonl"
    PYTHONPATH=$out/site python3 "$here/python.py" 2>> "$out/bench.err" | tee "$out/python.jsonl"
    PYTHONPATH=$out/site python3 "$here/kernels.py" 2>> "$out/bench.err" | tee "$out/kernels.jsonl"
fi
if [ -n "$peers" ]; then
    [ "$peers" = all ] && peers=""
    # shellcheck disable=SC2086  # Each section is a word.
    python3 "$here/peers.py" ${peers//,/ } 2> "$out/peers.err" | tee "$out/peers.jsonl"
fi
python3 "$here/report.py" "$out" $passed $failed || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ $failed = 0 ]
