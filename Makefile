# The verbs a person types. `make demo` and `make test` install what they need on a fresh Debian 12 with Rust.
PREFIX ?= /usr/local
CARGO ?= cargo

.PHONY: all build demo test test-docker check fmt bench install uninstall clean

all: build

build: ## the release binary, target/release/portolan
	scripts/packages.sh build
	$(CARGO) build --release --locked

demo: build ## the reference document's story on an engine of its own; nothing on the host is touched
	scripts/demo.sh

test: ## every test, on the release binary
	scripts/test.sh

test-docker: ## the end-to-end tests on Debian's dockerd, the old and the new: proves the tests
	scripts/test.sh docker
	scripts/test.sh docker-newer

check: ## format, lints, licences and advisories
	scripts/packages.sh build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	scripts/deny.py

fmt:
	$(CARGO) fmt --all

bench: build ## measures against Docker in one run; see bench/RESULTS.md
	bench/run.sh

install: ## the binary, completions and a systemd unit; needs `make build` first
	install -D -m 0755 target/release/portolan $(DESTDIR)$(PREFIX)/bin/portolan
	install -D -m 0644 packaging/portolan.service $(DESTDIR)$(PREFIX)/lib/systemd/system/portolan.service
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	target/release/portolan completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/portolan
	target/release/portolan completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_portolan
	target/release/portolan completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/portolan.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/portolan $(DESTDIR)$(PREFIX)/lib/systemd/system/portolan.service
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/portolan $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_portolan $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/portolan.fish

clean:
	$(CARGO) clean
