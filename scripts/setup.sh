#!/usr/bin/env bash
# Installs what is missing from Debian's packages: `setup.sh run` for building and running, `setup.sh test` for the
# tests too, `setup.sh bench` for the benchmarks' peers too. Does nothing, quickly, where everything is there.
set -euo pipefail

need=()
lacks() { ! command -v "$1" >/dev/null 2>&1; }
lacks cc && need+=(build-essential)
lacks ffmpeg || lacks ffprobe && need+=(ffmpeg)
lacks node && need+=(nodejs)
lacks npm && need+=(npm)
if [ "${1:-run}" = test ]; then
  lacks chromium && need+=(chromium fonts-dejavu-core)
fi

if [ "${1:-run}" = bench ]; then
  # Where it stands is on the path of root alone.
  [ ! -x /usr/sbin/nginx ] && lacks nginx && need+=(nginx)
  lacks fio && need+=(fio)
  [ ! -e /usr/include/isa-l.h ] && need+=(libisal-dev)
fi

lacks cargo && { echo "error: Rust is missing; install it from https://rustup.rs and try again" >&2; exit 1; }

if [ ${#need[@]} -gt 0 ]; then
  echo "installing ${need[*]}"
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    lacks sudo && { echo "error: as root, run: apt-get install ${need[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  lacks apt-get && { echo "error: this system has no apt-get; install these by hand: ${need[*]}" >&2; exit 1; }
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if ! { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}"; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "error: apt-get could not install ${need[*]}" >&2
    exit 1
  fi
fi

major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
[ "$major" -ge 18 ] || { echo "error: Node.js 18 or newer is needed, this is $(node --version)" >&2; exit 1; }
