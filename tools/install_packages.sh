#!/usr/bin/env bash
# Installs the Debian packages that a build ("build"), the trainer ("train") or the tests ("test", all of both) need
# and that are missing. Installs nothing, and needs no rights, when all are there. Exit code 75: try again later.
set -euo pipefail

build=(g++ cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev libcli11-dev
       zlib1g-dev libzstd-dev libcpp-httplib-dev prometheus-cpp-dev libspdlog-dev python3 python3-pip ca-certificates)
training=(libtorch-dev libgloo-dev libopenblas0-openmp)  # without OpenBLAS torch multiplies in fp32 sixty times slower
testing=(libgtest-dev libgmock-dev clang-format clang-tidy git python3-numpy python3-venv chromium "${training[@]}")
case ${1:-} in
  build) wanted=("${build[@]}") ;;
  train) wanted=("${build[@]}" "${training[@]}") ;;
  test) wanted=("${build[@]}" "${testing[@]}") ;;
  *) echo "usage: $0 build|train|test" >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null; then
  echo "No apt-get here: make sure that these (Debian 12 names) are installed: ${wanted[*]}" >&2
  exit 0
fi
missing=()
for package in "${wanted[@]}"; do
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} == 0 ]] && exit 0

as_root=()
if [[ $(id -u) != 0 ]]; then
  as_root=(sudo)
  [[ -t 0 ]] || as_root=(sudo -n)  # nobody there to type a password
  if ! command -v sudo >/dev/null || ! "${as_root[@]}" true; then
    echo "Missing packages. As root, run: apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
echo "Installing ${missing[*]}" >&2
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 "$@" </dev/null >&2; }
for attempt in 1 2 3; do
  if apt update && apt install -y --no-install-recommends "${missing[@]}"; then exit 0; fi
  echo "apt-get failed (attempt $attempt of 3)" >&2
  sleep $((attempt * 5))
done
echo "Could not install ${missing[*]}: see apt-get's messages above; is there a network?" >&2
exit 75
