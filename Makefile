# Patronus: every task of a developer is a target here; `make` lists them.
SHELL := /bin/bash
export GOTOOLCHAIN := go1.27.3
export GOFLAGS := -buildvcs=false

BIN      := bin/patronus
WEB      := dashboard/web/dist/manifest.json
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X patronus/appliance.Version=$(VERSION)
SOURCES  := $(shell find appliance configs dashboard e2e image netstack -name '*.go' -o -name '*.yaml' -o -name '*.s' 2>/dev/null) go.mod go.sum
GOFUMPT  := mvdan.cc/gofumpt@v0.12.0
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
SITES    ?= 3
PAGES    := $(shell find dashboard/web/src dashboard/web/pack dashboard/handbook appliance/docs/reference appliance/docs/metrics.md -type f 2>/dev/null) dashboard/web/package-lock.json

# What make image builds for, the kernel it takes (generic or cloud), and the key that signs.
ARCH     ?= amd64
KERNEL   ?= generic
KEY      ?= image/out/signing.key
# The time that stands in everything that is built: that of the sources.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1767225600)

.DEFAULT_GOAL := help
.PHONY: help web browser run build image test test-long check lint unit e2e fuzz bench bench-store bench-compare profile cover clean setup

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build and start a lab: three sites in one process, no root needed
	$(BIN) lab --sites $(SITES)

build: $(BIN) ## build bin/patronus (static)

$(BIN): $(SOURCES) $(WEB)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./appliance/cmd/patronus

web: $(WEB) ## make the dashboard's pages: libraries from npm by the lock file, style sheet, compression

# npm fetches what the lock file names, by hash, and runs none of its scripts.
$(WEB): $(PAGES)
	cd dashboard/web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	go run ./dashboard/web/pack

browser: web setup ## tests of the dashboard's pages in a real browser (at most 5 minutes)
	@bash e2e/browser/run

image: $(WEB) ## disk, update file and container into image/out/ARCH, without root (ARCH=amd64|arm64, KERNEL=generic|cloud, KEY=file)
	CGO_ENABLED=0 GOARCH=$(ARCH) go build -trimpath -ldflags '$(LDFLAGS)' -o bin/linux-$(ARCH)/patronus ./appliance/cmd/patronus
	go run ./image/mkimage -arch $(ARCH) -out image/out/$(ARCH) -kernel $(KERNEL) -binary bin/linux-$(ARCH)/patronus -version $(VERSION) -epoch $(SOURCE_DATE_EPOCH) -key $(KEY)

setup: ## install what the privileged tests need (as root; otherwise says what is missing)
	@bash e2e/setup

test: build setup ## unit and race tests and the short e2e (at most 15 minutes)
	@bash e2e/run short

test-long: build setup ## the slow tests: failover distributions, soak, fuzz
	@bash e2e/run long

unit: ## unit tests only, without the race detector
	go test -shuffle=on ./...

check: build lint ## what a reviewer would run: lint, formatting, the house's rules, tests
	go vet ./...
	go mod verify
	go test ./e2e/house/
	@bash e2e/run short

lint: ## golangci-lint and gofumpt
	go run $(GOLANGCI) run ./...
	@test -z "$$(go run $(GOFUMPT) -l appliance configs dashboard e2e image netstack | tee /dev/stderr)"

fuzz: ## each fuzz target for 30 s
	@bash e2e/run fuzz

bench: build ## speed side by side with other gateways, and curves of cost; writes e2e/out/bench.md
	@bash e2e/run bench

bench-store: ## stores side by side: ours, naive badger, Prometheus, VictoriaMetrics, InfluxDB; writes e2e/benchstore/RESULTS.md
	@bash e2e/run bench-store

bench-compare: ## Go benchmarks of HEAD beside those of BASE=revision, in turns, by benchstat
	@bash e2e/bench/compare.sh $(BASE) $(HEAD)

profile: build ## CPU profiles and flame graphs of a loaded gateway into e2e/out (ROW, LOAD to choose)
	@bash e2e/run profile

cover: ## test coverage by package
	go test -coverprofile=cover.out ./... && go tool cover -func=cover.out | tail -1

clean: ## remove what was built
	rm -rf bin e2e/out cover.out dashboard/web/node_modules e2e/browser/node_modules dashboard/web/dist/files $(WEB) image/out/amd64 image/out/arm64
