#!/bin/sh
# Every reader of what others wrote, fed so many changed inputs: tests/fuzz/run.sh [RUNS] [TARGET...]; 1000000 and all targets by default.
#
# Ends with an error where a target cannot bear an input, which is then in tests/fuzz/artifacts/TARGET/, and
# `tests/fuzz/target/.../TARGET FILE` shows what happens. Needs `cargo install cargo-fuzz --locked` and python3.
set -eu
cd "$(dirname "$0")/../.."
runs=${1:-1000000}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- sse answer import metrics table scan
here=tests/fuzz fixtures=tests/fixtures
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is not there: cargo install cargo-fuzz --locked" >&2; exit 1; }

# The pinned toolchain is a stable one, and cargo-fuzz passes flags of a nightly one.
RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir "$here" --sanitizer none
host=$(rustc -vV | sed -n 's/^host: //p')

python3 "$here/seeds.py" "$fixtures/interchange" "$here/corpus/import-seeds" "$here/corpus/import.dict"
log_of() { echo "$here/artifacts/$1.log"; }

# All side by side, each on one core.
for target; do
    dictionary=$here/words.dict longest=2048
    case $target in
        sse | answer) seeds="$fixtures/sse/llama-cpp-python $fixtures/sse/llama-server $fixtures/sse/transformers-serve" ;;
        import) seeds=$here/corpus/import-seeds dictionary=$here/corpus/import.dict longest=9216 ;;
        metrics) seeds=$fixtures/metrics ;;
        # No Parquet: its crate panics at damage, which is caught, and the fuzzer stops at a panic that is caught too.
        table | scan) seeds=$fixtures/traces ;;
        *) echo "no such target: $target" >&2; exit 1 ;;
    esac
    mkdir -p "$here/corpus/$target" "$here/artifacts/$target"
    # shellcheck disable=SC2086 # the seeds are several folders
    "$here/target/$host/release/$target" -runs="$runs" -max_len="$longest" -dict="$dictionary" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$here/artifacts/$target/" "$here/corpus/$target" $seeds >"$(log_of "$target")" 2>&1 &
    started="${started:-} $target=$!"
done
broken=
for one in $started; do
    target=${one%=*} log=$(log_of "${one%=*}")
    if ! wait "${one#*=}"; then
        echo "$target: cannot bear an input:" >&2
        tail -n 40 "$log" >&2
        broken=1
        continue
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -n 's/.*DONE *cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\).*/\1 counters, \2 features, \3 inputs kept/p' "$log")
    seconds=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$log")
    echo "$target: $executions inputs in $seconds s, $coverage"
done
[ -z "$broken" ]
