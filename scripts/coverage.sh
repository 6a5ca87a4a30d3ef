#!/usr/bin/env bash
# Line coverage of everything `cargo test` runs, as HTML in coverage/ and a summary on stdout. Needs an llvm of the
# same major version as rustc's: installed from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if ! command -v "llvm-cov-$major" >/dev/null; then
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "llvm-$major" >/dev/null
fi
command -v cargo-llvm-cov >/dev/null || cargo install --locked cargo-llvm-cov
export LLVM_COV="llvm-cov-$major" LLVM_PROFDATA="llvm-profdata-$major"
cargo llvm-cov --locked --workspace --html --output-dir coverage "$@"
cargo llvm-cov report --summary-only
