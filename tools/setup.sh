# Sourced by the scripts beside it: what a Debian 12 machine needs, and how to build. No effect of its own.

have() { command -v "$1" >/dev/null 2>&1; }
have_header() { echo "#include <$1>" | cc -E -x "${2:-c}" - >/dev/null 2>&1; }

# Prints a Python that has numpy: Debian's package serves Debian's Python, not another one that comes first in PATH.
python_with_numpy() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        "$candidate" -c 'import numpy' >/dev/null 2>&1 && command -v "$candidate" && return 0
    done
    return 1
}
have_pkg() { have pkg-config && pkg-config --exists "$1"; }

# Is what PACKAGE brings there already, from wherever? Asked of the tools, so that other sources than apt count too.
provided() {
    case "$1" in
        cmake | gcc | g++ | gnuplot | python3) have "$1" ;;
        ninja-build) have ninja || have make ;;
        pkg-config) have pkg-config ;;
        libc6-dev) have cc && have_header stdio.h ;;
        libjansson-dev) have_pkg jansson ;;
        libxxhash-dev) have_pkg libxxhash ;;
        libopenblas-serial-dev) have_pkg openblas || have_pkg lapack ;; # any LAPACK will do, OpenBLAS is the fast one
        gnuplot-nox) have gnuplot ;;
        libgtest-dev) have_header gtest/gtest.h c++ ;;
        libbenchmark-dev) have_header benchmark/benchmark.h c++ ;;
        python3-numpy) python_with_numpy >/dev/null ;;
        python3-venv) "$(python_with_numpy || echo python3)" -c 'import ensurepip' >/dev/null 2>&1 ;;
        *) false ;;
    esac
}

# Installs those of the named Debian packages that are missing. Touches neither network nor apt when all are there.
install_missing() {
    local package missing=() admin=()
    for package in "$@"; do
        provided "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! have apt-get; then
        echo "missing: ${missing[*]} (Debian's names); there is no apt-get here, install them by hand" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || { echo "missing: ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2; return 1; }
        admin=(sudo)
    fi
    echo "installing by apt: ${missing[*]}"
    "${admin[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >/dev/null || true
    "${admin[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

build_packages=(cmake gcc libc6-dev ninja-build pkg-config libjansson-dev libxxhash-dev libopenblas-serial-dev)
test_packages=(g++ libgtest-dev libbenchmark-dev python3 python3-numpy python3-venv gnuplot-nox)

# build_tree DIRECTORY [cmake options] [-- options of cmake --build]: configures and builds. A directory keeps the generator it
# was made with.
build_tree() {
    local directory="$1" options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ $# -gt 0 ] && shift
    local build=("$@")
    set -- "${options[@]}"
    if [ ! -e "$directory/CMakeCache.txt" ] && have ninja; then
        set -- -G Ninja "$@"
    fi
    cmake -S "$root" -B "$directory" "$@" || return 1
    cmake --build "$directory" -j "$(nproc)" "${build[@]}" || return 1
}

# run_tests DIRECTORY [options of ctest]: runs ctest, shows its output, leaves the counts in $passed, $failed and $skipped.
run_tests() {
    local log="$1/ctest.log" directory="$1" summary
    shift
    ctest --test-dir "$directory" "$@" --output-on-failure -j "$(nproc)" --timeout 600 </dev/null 2>&1 | tee "$log"
    # "NN% tests passed, F tests failed out of T"
    summary=$(sed -n 's/^[0-9]*% tests passed, \([0-9]*\) tests* failed out of \([0-9]*\)$/\1 \2/p' "$log" | tail -n 1)
    if [ -z "$summary" ]; then
        passed=0 failed=1 skipped=0
        return 1
    fi
    failed=${summary% *}
    # ctest counts what was skipped as passed.
    skipped=$(grep -c '(Skipped)$' "$log")
    passed=$((${summary#* } - failed - skipped))
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
