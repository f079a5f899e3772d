# Posthorn. A fresh machine needs Go, make and git; `make run` brings the rest.

ifeq ($(origin VERSION),undefined)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
else
override VERSION := $(value VERSION)
endif
# It goes through the environment, so that no shell reads what a tag is called,
# and the linker's flags are split at blanks and quotes.
export VERSION
check-version = @case "$$VERSION" in ''|*[!0-9A-Za-z._+-]*) \
	echo 'make: invalid version: want only digits, letters and . _ + - (it comes from the git tag; make VERSION=... sets another)' >&2; exit 2;; esac
# What is tested: `make test PKGS=./services/api/...`; the tests' flags are TESTFLAGS.
PKGS ?= work
TESTFLAGS ?= -race -shuffle=on -p 2 -timeout 20m
NEXT ?= .posthorn/next
# What the tests say of the part of the fault suite that they ran.
FAULTS_SUMMARY := $(CURDIR)/bin/faults-subset.txt

# Tools are pinned here and stay out of the modules' graphs.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
COMPOSE_LOADER := github.com/compose-spec/compose-go/v2/cmd@v2.16.2
# golangci-lint at the root of a workspace checks nothing unless it is told what.
DIRS = $(shell go list -m -f '{{.Dir}}/...')

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: install build ## install what is missing, build and run everything, Postgres and RabbitMQ included
	@exec bin/posthorn dev

.PHONY: install
install: ## install Postgres and RabbitMQ where they are missing (scripts/install)
	@scripts/install

.PHONY: build
build: ## write bin/posthorn
	$(check-version)
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$$VERSION" -o bin/posthorn ./services/cmd/posthorn

bin/withservers: FORCE
	@go build -o $@ ./services/lab/cmd/withservers

.PHONY: test
test: bin/withservers ## run all tests on a private Postgres and RabbitMQ (PKGS=..., TESTFLAGS=...)
	@scripts/install test
	@rm -f $(FAULTS_SUMMARY)
	POSTHORN_FAULTS_SUMMARY=$(FAULTS_SUMMARY) bin/withservers go test $(TESTFLAGS) $(PKGS)
	@cat $(FAULTS_SUMMARY) 2>/dev/null || true

.PHONY: test-next
test-next: bin/withservers ## the same tests on Postgres 17 and RabbitMQ 4, from a Debian trixie in .posthorn/next (takes root)
	@scripts/install test next
	@scripts/next $(NEXT)
	bin/withservers -chroot $(NEXT) go test $(TESTFLAGS) $(PKGS)

.PHONY: faults
faults: ## break it in every way that is known and write the table to docs/faults.md (takes some 25 minutes)
	@scripts/install test
	$(check-version)
	go build -tags failpoints -ldflags "-X main.version=$$VERSION" -o bin/posthorn-failpoints ./services/cmd/posthorn
	go build -o bin/faults ./services/lab/cmd/faults
	bin/faults -random 5m -table docs/faults.md

.PHONY: bench
bench: build ## measure it beside Postgres, RabbitMQ and HTTP alone, and write docs/performance.md (BENCH=-quick, -only ...)
	@scripts/install test
	go build -o bin/bench ./services/lab/cmd/bench
	bin/bench -table docs/performance.md $(BENCH)

.PHONY: bench-next
bench-next: build ## the same on Postgres 17 and RabbitMQ 4, into docs/performance-next.md (takes root)
	@scripts/install test next
	@scripts/next $(NEXT)
	go build -o bin/bench ./services/lab/cmd/bench
	bin/bench -chroot $(NEXT) -results bin/bench-next.json -table docs/performance-next.md $(BENCH)

.PHONY: lint
lint: ## check style and the arrows between packages (.golangci.yml)
	$(GOLANGCI_LINT) run $(DIRS)

.PHONY: fmt
fmt: ## format all Go files
	$(GOLANGCI_LINT) fmt $(DIRS:/...=)

.PHONY: tidy-check
tidy-check: ## check that each module builds alone and that its go.mod is true
	@scripts/modules

.PHONY: compose-check
compose-check: ## check docker-compose.yml
	@scripts/compose $(COMPOSE_LOADER)

.PHONY: compose-test
compose-test: ## start docker-compose.yml for real and check it (takes a Docker engine, and root where no image can be pulled)
	@NEXT=$(NEXT) scripts/compose-test

.PHONY: ci
ci: install lint tidy-check compose-check build test ## all that .ci/run runs

.PHONY: clean
clean: ## remove what was built (the data in .posthorn stay)
	rm -rf bin

.PHONY: FORCE
FORCE:
