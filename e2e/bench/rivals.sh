#!/usr/bin/env bash
# Builds the programs that make bench measures beside ours, each from a module
# of its own below e2e/rivals, so that the product's go.mod does not see them.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/e2e/out/bin
mkdir -p "$out"
export CGO_ENABLED=0
build() { (cd "e2e/rivals/$1" && go build -trimpath -o "$out/$2" "$3"); }
build wireguard-go wireguard-go golang.zx2c4.com/wireguard
build tailscale tailscale-wireguard-go github.com/tailscale/wireguard-go
build netstack netstack-proxy .
build nebula nebula github.com/slackhq/nebula/cmd/nebula
build nebula nebula-cert github.com/slackhq/nebula/cmd/nebula-cert
go build -trimpath -o "$out/bench" ./e2e/bench/cmd/bench
