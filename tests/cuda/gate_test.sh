#!/bin/sh
# gate_test.sh NVCC SOURCE_DIRECTORY PYTHON: the gates on kernels do stop what they are for.
set -u
nvcc=$1 root=$2 python=$3
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
compile() {
    "$root/cmake/nvcc-logged" "$directory/fixture.ptxas" "$nvcc" -arch=sm_90 -Xptxas --warning-as-error,-warn-spills,-v "$@" \
        -cubin -o "$directory/fixture.cubin" "$root/tests/cuda/gate_fixture.cu" 2> "$directory/said"
}
fail() {
    echo "$1" >&2
    cat "$directory/said" >&2
    exit 1
}
if compile -DSPILL; then fail "a kernel that spills was compiled"; fi
grep -q -i spill "$directory/said" || fail "the compile failed for another reason"
compile || fail "the kernel with a local array was not compiled"
if "$python" "$root/tools/cuda-report" --check "$directory" 2> "$directory/said"; then fail "a stack frame was accepted"; fi
grep -q 'local_array in fixture.cu for sm_90: 64 bytes of stack' "$directory/said" || fail "the stack frame was not named"
rm "$directory/fixture.ptxas"
if "$python" "$root/tools/cuda-report" --check "$directory" 2> "$directory/said"; then fail "no kernels at all were accepted"; fi
count() {
    "$python" "$root/tools/ptx-count" --check --all "$root/tests/cuda/count_fixture.ptx" "$@" > "$directory/said" 2>&1
}
count --at-most 0.3125 || fail "the kernel of 10 instructions for 32 bytes was counted otherwise"
if count --at-most 0.3124; then fail "too many instructions were accepted"; fi
grep -q '10 for   32 bytes  counted' "$directory/said" || fail "the instructions were not counted right"
exit 0
