# Everything a developer or a user types. `make help` lists it.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export CARGO_BUILD_JOBS ?= $(shell nproc)
DATA ?= data
ARGS ?=
FUZZ_SECONDS ?= 600
ENGINE_SCENARIOS := put get cold range paced mixed restart reclaim scrub
# GB that soaks store, all copies together, of which a little shows little; and what is free then for what is made anew.
# That a node dies is measured for as long as it is made anew, at no more than 100 MB a second: 7 GB a node, a minute.
SOAKS_OF_20_GB := the_space_of_what_is_deleted_comes_back nodes_come_and_go_under_load
SOAKS_OF_28_GB := a_dead_node_is_replaced_while_people_watch
SOAKS_FREE_GB := 20
# What `make bench-strict` holds against its targets, and the GB that each needs free.
STRICT := coding:1 degraded:4 census:20 overhead:34
WEB_SOURCES := $(shell find web/src web/public web/index.html web/package.json web/package-lock.json web/vite.config.ts web/svelte.config.js web/tsconfig.json -type f 2>/dev/null)

.PHONY: help run build test test-unit test-integration test-web test-browser check fmt bench bench-engine bench-strict soak fuzz coverage setup-run setup-test setup-bench clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

run: setup-run web/dist/index.html ## Install what is missing, build, start a cluster, load a sample video
	cargo build --release --locked
	target/release/vstack up --sample --data $(DATA) $(ARGS)

build: setup-run web/dist/index.html ## The optimised binary, target/release/vstack
	cargo build --release --locked

test: test-unit test-integration ## Every test; installs what they need
	@echo "make test: everything passed"

test-unit: setup-test web/dist/index.html test-web ## Unit and property tests, and each service over real sockets
	cargo test --locked --no-fail-fast --workspace --exclude vstack
	cargo test --locked -p vstack --bins
	cargo test --locked -p vstack-model --features planted --test planted_faults_are_found
	cargo test --locked -p vstack-engine --features planted --test planted_faults_are_found
	cargo test --locked -p vstack-sim --features planted --test planted_bugs_are_found

test-web: setup-test web/node_modules/.package-lock.json ## Unit tests and type check of the page
	cd web && npm run check && npm test

test-integration: setup-test web/dist/index.html ## Whole clusters: processes, sockets, real video, Chromium
	cargo build --locked -p vstack
	cargo test --locked --no-fail-fast -p vstack --test '*'
	$(MAKE) test-browser

test-browser: setup-test web/dist/index.html tests/browser/node_modules/.package-lock.json ## The pages in Chromium
	cargo build --locked -p vstack
	cd tests/browser && node --test --test-concurrency=1 *.test.mjs

check: web/dist/index.html ## Format, lints with warnings denied, dependency and licence policy
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --workspace --no-deps --document-private-items
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --all-features check --hide-inclusion-graph bans licenses sources
	cd web && npm run check

fmt: ## Format
	cargo fmt --all

bench: setup-bench web/dist/index.html ## Figures beside their peers, with spread and targets: ARGS='--strict consensus'
	cargo build --release --locked -p vstack
	cargo run --release --locked -p vstack-bench -- $(ARGS)

bench-engine: setup-bench web/dist/index.html ## Figures of a storage node beside nginx and fio, and as JSON: ARGS='--quick'
	cargo build --release --locked -p vstack
	cargo run --release --locked -p vstack-bench -- --json target/bench-engine.json $(ARGS) $(ENGINE_SCENARIOS)

bench-strict: setup-bench web/dist/index.html ## Fails unless every target of shards and the census is reached; what the disk has no room for is SKIPPED
	cargo build --release --locked -p vstack
	@place="$${TMPDIR:-/tmp}"; free=$$(df --output=avail -B1G "$$place" | tail -n 1); chosen=; \
	for one in $(STRICT); do \
		if [ "$$free" -ge "$${one#*:}" ]; then chosen="$$chosen $${one%:*}"; \
		else echo "SKIPPED: $${one%:*}: it needs $${one#*:} GB free in $$place, and there are $$free"; fi; \
	done; \
	[ -n "$$chosen" ] || exit 0; \
	cargo run --release --locked -p vstack-bench -- --strict $(ARGS) $$chosen

soak: setup-test web/dist/index.html ## Long campaigns: model, engine, 100,000 simulated histories, histories and kills of real processes, what a PUT costs, fuzzing
	cargo test --release --locked -p vstack-model -- --ignored --nocapture
	cargo test --release --locked -p vstack-engine --test campaign_of_faults --test every_fault_on_the_medium_is_found --test half_of_it_is_deleted -- --ignored --nocapture
	cargo test --release --locked -p vstack-sim --test histories -- --ignored --nocapture
	cargo build --release --locked -p vstack
	VSTACK_BIN=$(CURDIR)/target/release/vstack cargo test --release --locked -p vstack-node --test the_cost_of_a_put -- --ignored --nocapture
	VSTACK_SOAK=1 VSTACK_BIN=$(CURDIR)/target/release/vstack cargo test --locked --no-fail-fast -p vstack --test '*' -- --include-ignored --nocapture --test-threads=1 $(addprefix --skip=,$(SOAKS_OF_20_GB) $(SOAKS_OF_28_GB))
	$(call soak-storing,20,$(SOAKS_OF_20_GB))
	$(call soak-storing,28,$(SOAKS_OF_28_GB))
	$(MAKE) fuzz

# $(call soak-storing,GB,TESTS): with so much stored where the disk has room for it; else with what they store by themselves,
# and then they say SKIPPED of the figures that are of so much.
define soak-storing
@free=$$(df --output=avail -B1G "$${TMPDIR:-/tmp}" | tail -n 1); \
	if [ -z "$$VSTACK_HEAL_GB" ] && [ "$$free" -ge $$(($(1) + $(SOAKS_FREE_GB))) ]; then export VSTACK_HEAL_GB=$(1); fi; \
	echo "soaks that store VSTACK_HEAL_GB=$${VSTACK_HEAL_GB:-(not set: $(1) need $$(($(1) + $(SOAKS_FREE_GB))) free, and $$free are)}: $(2)"; \
	VSTACK_SOAK=1 VSTACK_BIN=$(CURDIR)/target/release/vstack cargo test --locked --no-fail-fast -p vstack --test heals -- --ignored --nocapture --test-threads=1 $(2)
endef

fuzz: ## Every fuzz target, FUZZ_SECONDS each; installs nightly Rust and cargo-fuzz where they are missing
	@cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cargo run --locked -p vstack-engine --features fuzzing --example fuzz_seeds -- fuzz/corpus
	@set -e; for target in $$(cargo +nightly fuzz list); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		words=; case $$target in engine_*) words=-dict=fuzz/engine.dict;; esac; \
		cargo +nightly fuzz run $$target -- $$words -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -print_final_stats=1; \
	done

coverage: setup-test web/dist/index.html ## Line coverage of the unit and integration tests, in coverage/
	scripts/coverage.sh

setup-run: ## Install what building and running need
	@scripts/setup.sh run

setup-test: ## Install what the tests need
	@scripts/setup.sh test

setup-bench: ## Install what the benchmarks need
	@scripts/setup.sh bench

web/node_modules/.package-lock.json: web/package-lock.json web/package.json
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

tests/browser/node_modules/.package-lock.json: tests/browser/package-lock.json tests/browser/package.json
	cd tests/browser && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run build
	@touch $@

clean: ## Remove what was built
	cargo clean
	rm -rf web/dist web/node_modules tests/browser/node_modules coverage
