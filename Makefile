# The whole of Everhold's development in a few verbs; `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build test demo bench install uninstall lint fmt clean

PREFIX ?= /usr/local
# Where systemd looks for units that come with neither the distribution nor the administrator.
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSCONFDIR ?= /etc
BINARY := target/release/everhold
SCRIPTS := .ci/run $(wildcard scripts/*.sh scripts/*/*.sh)

# The tests mount file systems and start Docker Engines, so they run as root; cargo stays with the caller.
ifneq ($(shell id -u),0)
AS_ROOT := --config 'target."cfg(unix)".runner = ["sudo", "-E", "env", "PATH=$(PATH)"]'
endif

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the Debian packages that development needs
	scripts/setup.sh test

build: ## Release build
	scripts/setup.sh build
	cargo build --release --locked

test: ## Everything: unit, property, conformance, real-kernel and real-Docker tests
	scripts/setup.sh test
	scripts/images.sh
	scripts/qemu.sh build
	cargo test --workspace --locked --no-fail-fast $(AS_ROOT)

demo: ## The story: a database outlives its container, a dropped table and its volume (KEEP=1 leaves it running)
	scripts/demo.sh

bench: ## Measure, side by side with Docker's local driver and a host directory
	scripts/setup.sh bench
	cargo build --release --locked
	scripts/bench.sh

# Not built here, so that `sudo make install` runs no compiler as root.
install: ## Install what `make build` made (PREFIX, DESTDIR)
	@[[ -x $(BINARY) ]] || { echo 'Run make build first.' >&2; exit 1; }
	install -D -m 0755 $(BINARY) '$(DESTDIR)$(PREFIX)/bin/everhold'
	install -D -m 0644 <(sed 's#^ExecStart=[^ ]*#ExecStart=$(PREFIX)/bin/everhold#' packaging/everhold.service) '$(DESTDIR)$(UNITDIR)/everhold.service'
	@# The administrator's configuration is never overwritten.
	@config='$(DESTDIR)$(SYSCONFDIR)/everhold/config.toml'; \
	if [[ -e $$config ]] && ! cmp -s packaging/config.toml "$$config"; then \
	  echo "$$config exists: the new default is beside it as config.toml.new"; config+=.new; fi; \
	install -D -m 0644 packaging/config.toml "$$config"
	@# A program that fails must not leave an empty completion behind: through a file, not a pipe.
	@made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	for shell in bash zsh fish; do $(BINARY) completions $$shell >"$$made/$$shell"; done; \
	install -D -m 0644 "$$made/bash" '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/everhold'; \
	install -D -m 0644 "$$made/zsh" '$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_everhold'; \
	install -D -m 0644 "$$made/fish" '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/everhold.fish'; \
	mkdir "$$made/man"; $(BINARY) man --dir "$$made/man"; \
	for page in "$$made"/man/*.[1-8]; do \
	  install -D -m 0644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; done
	@[[ -n '$(DESTDIR)' ]] || echo 'Next: systemctl daemon-reload && systemctl enable --now everhold'

uninstall: ## Remove what install put there, except configuration and data
	rm -f '$(DESTDIR)$(PREFIX)/bin/everhold' '$(DESTDIR)$(UNITDIR)/everhold.service' \
	  '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/everhold' \
	  '$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_everhold' \
	  '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/everhold.fish' \
	  '$(DESTDIR)$(PREFIX)'/share/man/man[1-8]/everhold{,-*}.[1-8]
	@echo 'Kept: $(SYSCONFDIR)/everhold (configuration) and /var/lib/everhold (volumes).'

lint: ## Formatting, clippy and shellcheck, warnings are errors
	scripts/setup.sh lint
	shellcheck --external-sources $(SCRIPTS)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings

fmt: ## Format the Rust code
	cargo fmt --all

clean: ## Remove build products (the image cache in ~/.cache/everhold stays)
	cargo clean
