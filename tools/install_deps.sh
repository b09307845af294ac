#!/usr/bin/env bash
# Installs what building and testing need, if it is missing (Debian 12+, Ubuntu 24.04+).
#   tools/install_deps.sh        what ./run and ./test need
#   tools/install_deps.sh --ci   also what .ci/run and the thread sanitizer need
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

# The one place that names it: another version lays code out differently.
clang_format=19.1.7

packages=(g++ cmake ninja-build ccache git ca-certificates xz-utils python3 gnuplot-nox
  libdnnl-dev libhwy-dev libtomlplusplus-dev libcli11-dev rapidjson-dev libfmt-dev libgtest-dev)
# The thread sanitizer needs clang and its own OpenMP (gcc reports falsely); llvm-19 gives names.
ci_packages=(clang-19 clang-tidy-19 libclang-rt-19-dev libomp-19-dev llvm-19 python3-venv)

die() { echo "install_deps: $*" >&2; exit 1; }

installed() { [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }

missing_of() {
  local package
  for package in "$@"; do installed "$package" || echo "$package"; done
}

install_packages() {
  local missing as_root=() log
  mapfile -t missing < <(missing_of "$@")
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "no apt-get here; install by hand: ${missing[*]}"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "not root and no sudo; as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
    apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  log=$(mktemp)
  echo "installing ${missing[*]}"
  "${apt[@]}" update >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "apt-get update failed (no network, or no sudo?)"; }
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "cannot install: ${missing[*]} (Ubuntu: enable 'universe')"; }
  rm -f "$log"
  mapfile -t missing < <(missing_of "$@")
  ((${#missing[@]} == 0)) || die "still missing after apt-get install: ${missing[*]}"
}

install_clang_format() {
  local venv=$root/.venv-ci
  [[ -x $venv/bin/clang-format &&
    $("$venv/bin/clang-format" --version) == *" $clang_format"* ]] && return 0
  echo "installing clang-format $clang_format"
  # Debian's python3 by path: it has the venv package that was just installed.
  /usr/bin/python3 -m venv --clear "$venv" || die "cannot make $venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "clang-format==$clang_format" ||
    die "cannot install clang-format==$clang_format from PyPI"
}

case "${1:-}" in
  "") install_packages "${packages[@]}" ;;
  --ci)
    install_packages "${packages[@]}" "${ci_packages[@]}"
    install_clang_format
    ;;
  *) die "unknown option '$1' (the only one is --ci)" ;;
esac
