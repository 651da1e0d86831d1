# `make` lists what there is. The work is in scripts/.

.PHONY: help build demo smoke test celery-test client-test lint fmt browser-test idle-memory bench

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## Start everything, run some jobs, show the page and the progress; Ctrl-C ends it
	@scripts/demo

test: ## Run everything: lints, tests against a real RabbitMQ, the page in a browser, Celery, foreign clients, smoke
	@scripts/test

smoke: ## One job in by a foreign client, out at a foreign client, in under a minute
	@scripts/smoke

celery-test: ## Only the tests with the real Celery and Flower
	@scripts/celery-test

client-test: ## Only the tests with foreign WebSocket clients
	@scripts/client-test

browser-test: ## Only the tests of the page
	@scripts/browser-test

idle-memory: ## Measure what 10,000 idle connections cost the notifier (release build, two minutes)
	cargo build --release -p bellhop-bench
	@target/release/bellhop-bench idle --rounds 1 --without centrifuge --without nchan --check

bench: ## Measure against the peers (release build, an hour; see bench/README.md)
	cargo build --release -p bellhop-bench
	@for scenario in worker fanout idle accept latency stored resume deliver alerts; do \
	    target/release/bellhop-bench $$scenario || exit 1; echo; done

lint: ## Only format, lints, documentation and scripts
	@scripts/lint

build: ## Build both services
	cargo build --workspace --bins

fmt: ## Format the code
	cargo fmt --all
