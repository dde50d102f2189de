#!/bin/sh
# Builds the CUDA device of the tests: every kernel of kernels/, compiled for the host once per element type, behind the
# names libcuda.so.1, libnvrtc.so.13 and libcublasLt.so.13, which the folder it is given then holds.
#
#   tests/fakes/cuda/build.sh FOLDER [KERNELS]
#
# KERNELS is another folder of kernels: a copy with a planted mistake. CXX names the compiler.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
kernels=${2:-$here/../../../kernels}
mkdir -p "$out/host"
out=$(cd "$out" && pwd)
compiler=${CXX:-c++}

flags="-std=c++17 -O2 -fPIC -fvisibility=hidden -pthread -Wall -Wextra -Wno-unknown-pragmas -Wno-unused -I$here"
# NVRTC fuses products and sums; so does the host where it can, so that no result relies on either.
if grep -qw fma /proc/cpuinfo 2>/dev/null; then flags="$flags -mavx2 -mfma"; fi

# A shared variable needs a slot per block, which a prefix cannot declare: the declaration is rewritten. One that the
# pattern misses does not compile.
rm -f "$out"/host/*
for source in "$kernels"/*.cu "$kernels"/*.cuh; do
    [ -e "$source" ] || continue
    sed -E '/#define/!s/^( *)SHARED +(alignas\([^)]*\) +|__align__\([^)]*\) +)?(.*[ >*])([A-Za-z_][A-Za-z_0-9]*)((\[[^];]*\])*) *;/\1static simt::Site \4_site{"\4"}; typedef \3 \4_shared\5; \4_shared\& \4 = simt::shared<\4_shared>(\4_site);/' \
        "$source" > "$out/host/$(basename "$source")"
done

# FNV-1a, 64 bits, of a file: how a compiled program names the source it was compiled from.
$compiler -std=c++17 -O2 -o "$out/host/hash" "$here/hash.cpp"

jobs="$out/host/jobs"
: > "$jobs"
programs="$out/host/programs.h"
: > "$programs"
for source in "$kernels"/*.cu; do
    [ -e "$source" ] || continue
    program=$(basename "$source" .cu)
    echo "{\"$program\", 0x$("$out/host/hash" "$source")ull}," >> "$programs"
    for element in F32 BF16; do
        unit="$out/host/$program.$element"
        # Everything in a file of its own namespace: two programs may use one name.
        printf '#include "simt.h"\nnamespace {\n#include "%s"\n}\n' "$out/host/$program.cu" > "$unit.cpp"
        lower=$(echo $element | tr 'A-Z' 'a-z')
        echo "$compiler $flags -I$out/host -DELEMENT_$element -DSIMT_PROGRAM='\"$program\"' -DSIMT_ELEMENT='\"$lower\"' -c $unit.cpp -o $unit.o" >> "$jobs"
    done
done
for source in "$here"/*.cpp; do
    name=$(basename "$source" .cpp)
    [ "$name" = hash ] || echo "$compiler $flags -I$out/host -c $source -o $out/host/$name.part.o" >> "$jobs"
done
tr '\n' '\0' < "$jobs" | xargs -0 -P "${JOBS:-2}" -n 1 sh -c
