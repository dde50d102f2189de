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
mkdir -p "$out/host" "$out/kernels"
out=$(cd "$out" && pwd)
compiler=${CXX:-c++}

# Kernels read the same bytes as different types, as CUDA lets them.
flags="-std=c++17 -O2 -fno-strict-aliasing -fPIC -fvisibility=hidden -pthread -Wall -Wextra -Wno-unknown-pragmas -Wno-unused -I$here -I$out/host"
# NVRTC fuses products and sums; so does the host where it can, so that no result relies on either.
if grep -qw fma /proc/cpuinfo 2>/dev/null; then flags="$flags -mavx2 -mfma"; fi

# As they are, for who must give the compiler the very text.
rm -f "$out"/kernels/*
cp "$kernels"/*.cu "$kernels"/*.cuh "$out/kernels"

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

# Which text each file held: an image of any other is refused. FNV-1a, as image.h has it.
$compiler -std=c++17 -O2 -o "$out/host/hash" "$here/hash.cpp"
for source in "$kernels"/*.cu "$kernels"/*.cuh; do
    [ -e "$source" ] && echo "{\"$(basename "$source")\", 0x$("$out/host/hash" "$source")ull},"
done > "$out/host/sources.h"

jobs="$out/host/jobs"
sanitized=alignment,bounds,shift-exponent,integer-divide-by-zero
for source in "$kernels"/*.cu; do
    program=$(basename "$source" .cu)
    for element in f32 bf16; do
        unit="$out/host/$program.$element"
        # Each unit in a namespace of its own: two programs may use one name.
        printf '#include "simt.h"\nnamespace {\n#include "%s.cu"\n}\n' "$program" > "$unit.cpp"
        defines="-DELEMENT_$(echo $element | tr a-z A-Z) -DSIMT_PROGRAM='\"$program\"' -DSIMT_ELEMENT='\"$element\"'"
        # A fiber's stack is small: what does not fit must not compile. What goes wrong is reported by sanitizer.cpp.
        checks="-Werror=frame-larger-than=24576 -fsanitize=$sanitized -fno-sanitize-recover=$sanitized"
        echo "$compiler $flags $checks $defines -c $unit.cpp -o $unit.o"
    done
done > "$jobs"
for source in "$here"/*.cpp; do
    name=$(basename "$source" .cpp)
    [ "$name" = hash ] || echo "$compiler $flags -c $source -o $out/host/$name.device.o" >> "$jobs"
done
tr '\n' '\0' < "$jobs" | xargs -0 -P "${JOBS:-2}" -n 1 sh -c

core=libplimsoll_host_cuda.so
$compiler -shared -pthread -Wl,-soname,$core -Wl,-Bsymbolic -Wl,-z,defs -o "$out/$core" "$out"/host/*.o
# The names the driver and its libraries are opened by; each leads to the one above.
for name in libcuda.so libcuda.so.1 libnvrtc.so libnvrtc.so.12 libnvrtc.so.13 libcublasLt.so libcublasLt.so.12 libcublasLt.so.13; do
    $compiler -shared -nostdlib -Wl,-soname,$name -Wl,--no-as-needed -Wl,-rpath,'$ORIGIN' -o "$out/$name" "$out/$core"
done
