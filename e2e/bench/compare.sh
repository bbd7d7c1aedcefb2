#!/usr/bin/env bash
# Compares the Go benchmarks of two commits on this machine: both are built
# first and then run in turns, so that a slow minute hits both.
#   compare.sh BASE [HEAD]     PACKAGES, BENCH, COUNT, BENCHTIME from the environment
set -euo pipefail
cd "$(dirname "$0")/../.."
base=$(git rev-parse --verify "${1:?compare.sh BASE [HEAD]}^{commit}")
head=$(git rev-parse --verify "${2:-HEAD}^{commit}")
packages=${PACKAGES:-netstack netstack/packet netstack/flow netstack/policy netstack/tunnel}
pattern=${BENCH:-.} count=${COUNT:-6} time=${BENCHTIME:-200ms}
BENCHSTAT=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
work=$(mktemp -d)
trap 'for s in base head; do git worktree remove --force "$work/$s" 2>/dev/null || true; done; rm -rf "$work"' EXIT
for side in base head; do
	git worktree add --quiet --detach "$work/$side" "${!side}"
	for p in $packages; do
		[ -d "$work/$side/$p" ] || continue
		(cd "$work/$side/$p" && go test -c -o "$work/$side-${p//\//-}.test" .)
	done
done
for _ in $(seq "$count"); do
	for p in $packages; do
		for side in base head; do
			t=$work/$side-${p//\//-}.test
			[ -x "$t" ] || continue
			echo "pkg: patronus/$p" >>"$work/$side.txt"
			(cd "$work/$side/$p" && "$t" -test.run '^$' -test.bench "$pattern" -test.benchtime "$time" -test.benchmem -test.timeout 10m) >>"$work/$side.txt"
		done
	done
done
out=$PWD/e2e/out
mkdir -p "$out"
cp "$work/base.txt" "$out/bench-base.txt"
cp "$work/head.txt" "$out/bench-head.txt"
go run "$BENCHSTAT" "base=$out/bench-base.txt" "head=$out/bench-head.txt" | tee "$out/bench-compare.txt"
