# Every target works on a fresh machine with Go; what else it needs it installs or names.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO          ?= go
FUZZTIME    ?= 60s
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SOURCES     := $(shell find . -name '*.go' -not -path './bench/.work/*') go.mod go.sum

.PHONY: help build run test lint check fuzz bench docs clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

build: bin/headgate ## the binary, in bin/

bin/headgate: $(SOURCES)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/headgate

run: bin/headgate ## the gateway on :8080 with examples/shop.yaml, in front of the demo shop
	@echo 'Try, in another terminal:'
	@echo '  curl -i http://127.0.0.1:8080/shop/orders                       # 401: this API wants a key'
	@echo '  curl -i -H "X-Api-Key: demo" http://127.0.0.1:8080/shop/orders  # 200: the orders'
	@echo '  curl -i http://127.0.0.1:8080/hello/you                         # 200: answered by the gateway itself'
	@echo
	bin/headgate run --demo examples/shop.yaml

test: lint ## everything that must hold, with the race detector
	@.ci/install gcc curl openssl nginx haproxy
	@.ci/install gtlsclient sslscan || echo 'without these two some conformance tests are skipped'
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v '^headgate/test')
	CGO_ENABLED=1 $(GO) test -race -timeout 20m -p 1 ./test/... # real processes and real time: one package at a time

lint: ## format, vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "not gofmt-ed: $$unformatted"; exit 1; fi
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) tool staticcheck ./...

check: lint ## lint, the house rules, and a look for known vulnerabilities (never a gate)
	$(GO) test .
	@if ! command -v govulncheck >/dev/null; then echo 'govulncheck is not installed: not looked for known vulnerabilities'; \
	  else govulncheck ./... || echo 'govulncheck: see above; this does not fail the check'; fi

fuzz: ## each fuzz target for FUZZTIME (60s)
	@.ci/fuzz $(FUZZTIME)

bench: bin/headgate ## headgate beside nginx and HAProxy, see bench/README.md
	bench/run

docs: bin/headgate ## write docs/reference and the READMEs' tables anew; the tests fail when it is stale
	.ci/docs bin/headgate docs/reference
	$(GO) test ./policies ./test -run 'OptionTablesAreFresh|MetricsReferenceIsFresh' -update

clean: ## what was built
	rm -rf bin bench/.work
