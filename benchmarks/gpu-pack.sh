#!/usr/bin/env bash
# Builds what a GPU machine needs to try plimsoll, into the folder gpu-pack/ (not kept by git), under 40 MB:
#     benchmarks/gpu-pack.sh
# The machine needs nothing but bash, coreutils, gzip and an NVIDIA driver: copy the folder there and run gpu-pack/gpu.sh.
# PROFILE names the cargo profile of the program (default: release); tests are built as `cargo test` builds them.
# CARGO names cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
cargo=${CARGO:-cargo}
pack=gpu-pack
most=$((40 * 1000 * 1000))

# The path of an executable among cargo's messages, by its target's name.
built() {
    sed -n 's/.*"target":{[^}]*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

$cargo build --locked --profile "$profile" --bin plimsoll --message-format json-render-diagnostics > "$pack.messages"
program=$(built plimsoll < "$pack.messages")
$cargo test --locked --no-run --test suite --message-format json-render-diagnostics > "$pack.messages"
suite=$(built suite < "$pack.messages")
rm -f "$pack.messages"

rm -rf "$pack"
mkdir -p "$pack/tests/fixtures"
strip -o "$pack/plimsoll" "$program"
strip -o "$pack/suite" "$suite"
gzip -9n "$pack/suite"
cp -r tests/fixtures/models "$pack/tests/fixtures/"
cp benchmarks/gpu.sh "$pack/"
git describe --always --dirty --abbrev=12 > "$pack/commit" 2>/dev/null || echo unknown > "$pack/commit"

size=$(du -sb "$pack" | cut -f1)
du -ab "$pack" | sort -rn | head -n 8
echo "$pack: $size bytes of $most"
[ "$size" -le "$most" ]
