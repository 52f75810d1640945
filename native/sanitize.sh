#!/usr/bin/env bash
# Builds the native engine with GCC's sanitizers of addresses and undefined behaviour, and runs its tests with that one.
# From the repository's root: native/sanitize.sh [PYTHON] [pytest's arguments]. PYTHON's environment is not changed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv-dev/bin/python}
shift || true
build=build/sanitize
cmake -S native -B "$build" -DCMAKE_BUILD_TYPE=Debug -DUNDERSTUDY_SANITIZE=ON -DPython_EXECUTABLE="$(command -v "$python")" \
  -Dnanobind_DIR="$("$python" -m nanobind --cmake_dir)" > /dev/null
cmake --build "$build" --parallel 2
# Python itself leaks, and hypothesis' deadlines are off already. Tests of served models need no second look.
export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1
LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so)"
PYTHONPATH="$PWD/$build" "$python" -m pytest -q -p no:cacheprovider -n 0 \
  tests/native/test_native_numerics.py tests/native/test_native_invariance.py tests/native/test_native_refusals.py "$@"
