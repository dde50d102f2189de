#!/usr/bin/env bash
# Tries plimsoll on a GPU machine, from what benchmarks/gpu-pack.sh made and nothing else, in one call of less than 8 minutes:
#     gpu-pack/gpu.sh
# Stages: node, doctor, the tests of the CUDA device, ceilings, steps beside their floor, compute-sanitizer, bench --quick.
# Eight files at most come into $OUT (default: ./gpu-results), each with its command, output and exit code. A stage that fails
# stops none of the others; what the time does not suffice for is said. The last line is a summary.
#
# SECONDS_MOST bounds the whole (default 465). STEPS holds other arguments for `plimsoll steps`, CEILINGS for `plimsoll ceilings`,
# DOCTOR for `plimsoll doctor`, BENCH for `plimsoll bench`, TESTS_OPS names tests; STAGES names the stages to run (default: all).
set -u
pack=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-./gpu-results}
mkdir -p "$out"
out=$(cd "$out" && pwd)
most=${SECONDS_MOST:-465}
summary="commit $(cat "$pack/commit" 2>/dev/null || echo unknown):"
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
suite="$pack/suite"
[ ! -e "$suite.gz" ] || { suite="$work/suite"; gzip -dc "$pack/suite.gz" > "$suite"; }
chmod +x "$pack/plimsoll" "$suite" 2>/dev/null
export PLIMSOLL_DATA_DIR="$work/data" PLIMSOLL_LOCK_DIR="$work" XDG_CACHE_HOME="$work/cache"
export PLIMSOLL_TEST_GPU=1 PLIMSOLL_TEST_ROOT="$pack" NO_COLOR=1

# stage NAME LIMIT COMMAND...: runs the command for LIMIT seconds at most, and no longer than is left.
stage() {
    local name=$1 limit=$2 left=$((most - SECONDS)) began=$SECONDS code
    shift 2
    case " ${STAGES:-$name} " in *" $name "*) ;; *) return ;; esac
    local file="$out/${name%-*}.txt"
    if [ "$left" -lt 5 ]; then
        echo "== $name: left out, no time left" | tee -a "$file"
        summary="$summary $name=left-out"
        return
    fi
    [ "$limit" -lt "$left" ] || limit=$left
    echo "== $name: $* (at most $limit s)" | tee -a "$file"
    timeout --kill-after=5 "$limit" "$@" >> "$file" 2>&1
    code=$?
    echo "== $name: exit $code after $((SECONDS - began)) s" | tee -a "$file"
    summary="$summary $name=$((SECONDS - began))s/$code"
    [ "$code" -eq 0 ] || failed=$((failed + 1))
}

rm -f "$out"/{node,doctor,tests,ceilings,steps,sanitizer,bench,summary}.txt
stage node 20 "$pack/plimsoll" node
command -v nvidia-smi > /dev/null && stage node-smi 20 nvidia-smi -q -d MEMORY,CLOCK,POWER,TEMPERATURE,ECC
stage doctor 90 "$pack/plimsoll" doctor --require-gpu ${DOCTOR:-}
stage ceilings 60 "$pack/plimsoll" ceilings ${CEILINGS:-}
stage steps 130 "$pack/plimsoll" steps ${STEPS:---model llama-3.1-8b}
stage tests-ops 60 "$suite" --test-threads=1 --nocapture ${TESTS_OPS:-cuda_ops::}
stage tests-models 90 "$suite" --test-threads=1 --nocapture cuda_models::
stage bench 150 "$pack/plimsoll" bench --quick ${BENCH:-}
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck; do
        stage "sanitizer-$tool" 60 "$sanitizer" --tool "$tool" --error-exitcode 9 "$suite" --test-threads=1 cuda_ops::norms
        stage "sanitizer-$tool" 90 "$sanitizer" --tool "$tool" --error-exitcode 9 "$suite" --test-threads=1 cuda_ops::
    done
else
    echo "== sanitizer: left out, there is no compute-sanitizer" | tee "$out/sanitizer.txt"
    summary="$summary sanitizer=absent"
fi
echo "$summary failed=$failed total=${SECONDS}s" | tee "$out/summary.txt"
exit $((failed > 0))
