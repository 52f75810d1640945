#!/usr/bin/env bash
# Runs the kernels for AVX-512 on any Linux of x86-64: on a Sapphire Rapids that Bochs emulates, beside those in plain C++.
# Then the ones for AMX, with a unit in software in the place of tiles, which that Bochs has not. Prints a line of JSON for
# each, in a minute or two, and fails if any bits differ. It needs g++, Python >= 3.11 and what pip fetches.
#
#   native/bochs/prove.sh [SED]    SED is a script that spoils the kernels under test, to see that it is noticed:
#   native/bochs/prove.sh 's/multiply_su</multiply_us</'
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
python=$work/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt

cp -r ../src "$work/src"
if [ $# -gt 0 ]; then
  sed -i "$1" "$work"/src/kernels/*
  ! diff -qr ../src "$work/src" > /dev/null || { echo "prove.sh: $1 changes nothing" >&2; exit 2; }
fi
cp amx_instructions.hpp "$work/src/kernels"

# Options are read from ../CMakeLists.txt, but for those that it leaves to CMake.
options() { sed -n "$1s/.*$2.*/\1/p" ../CMakeLists.txt | tr ';' ' '; }
compile() { g++ -std=gnu++20 -O3 -DNDEBUG -fPIC -fvisibility=hidden "${common[@]:?}" "${@:2}" -c -o "$work/$1.o"; }

read -ra common <<< "$(options '/target_compile_options(engine/' 'PRIVATE \(.*\))')"
compile emulated ../src/kernels/emulated.cpp
compile agree -fno-exceptions ../src/agree.cpp
g++ -shared -fPIC -o "$work/shim.so" shim.cpp -ldl

status=0
for kernels in avx512 amx; do
  read -ra own <<< "$(options "/$kernels.cpp PROPERTIES/,/)/" '"\(.*\)"')"
  compile "$kernels" "${own[@]:?}" "$work/src/kernels/$kernels.cpp"
  compile guest -fno-exceptions -I../src -DKERNELS="${kernels}_kernels" guest.cpp
  # What would throw calls a function that is nowhere, at address 0.
  g++ -nostdlib -static -no-pie -Wl,--unresolved-symbols=ignore-all -o "$work/guest" \
    "$work"/{guest,agree,emulated,"$kernels"}.o
  "$python" run.py "$work/shim.so" "$work/guest" "$kernels" || status=1
done
exit "$status"
