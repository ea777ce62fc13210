#!/usr/bin/env bash
# Builds llama-cpp-python from source for this very CPU and installs it in an environment of its own. Prints the path
# of that environment's python as its last line. Wheel and environment lie in the user's cache directory, so the
# long build (20 minutes on one core) happens once.
#
#   JOBS=2 bench/compare_llama/prepare.sh
set -euo pipefail

version=${LLAMA_CPP_PYTHON_VERSION:-0.3.36}
root=${XDG_CACHE_HOME:-$HOME/.cache}/dspark/compare_llama/$version
python=$root/venv/bin/python
mkdir -p "$root/wheel"

if ! compgen -G "$root/wheel/llama_cpp_python-*.whl" >/dev/null; then
  rm -rf "$root/build_venv"
  python3 -m venv "$root/build_venv"
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-1} \
    nice -n 10 "$root/build_venv/bin/python" -m pip wheel --no-deps --no-cache-dir --no-binary llama-cpp-python \
    --wheel-dir "$root/wheel" "llama-cpp-python==$version" >&2
  rm -rf "$root/build_venv"
fi
if ! "$python" -c 'import llama_cpp' 2>/dev/null; then
  rm -rf "$root/venv"
  python3 -m venv "$root/venv"
  "$python" -m pip install --quiet "$root"/wheel/llama_cpp_python-*.whl >&2
fi
echo "$python"
