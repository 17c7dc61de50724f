# Developers and CI run the same scripts: a recipe is a step of .ci/run.

# Lists the recipes.
default:
    @just --list --unsorted

# Every step, as CI runs them.
ci:
    .ci/run

# Some steps by name, for example `just step fmt clippy`.
step +names:
    .ci/run {{names}}

# The README's test command.
test:
    .ci/run test

# Installs the Debian packages that the steps need.
install:
    .ci/run install

# Formatting.
fmt:
    .ci/run fmt

# House rules that no compiler lint covers.
tidy:
    .ci/run tidy

# Shell scripts parse and pass shellcheck.
scripts:
    .ci/run scripts

# Lints, with warnings as errors.
clippy:
    .ci/run clippy

# API documentation, private items included.
doc:
    .ci/run doc

# Build with the oldest promised compiler.
msrv:
    .ci/run msrv

# Features that must build, and combinations that must not.
features:
    .ci/run features

# Prometheus configuration, alert tests, systemd unit.
deploy:
    .ci/run deploy

# The server under redis-cli, redis-benchmark and Prometheus.
clients:
    .ci/run clients

# The server under churn and faults for two minutes.
soak:
    .ci/run soak

# Redis, PostgreSQL, Python and others with the shared library preloaded.
preload:
    .ci/run preload

# The embedded profile without std, and what allocators cost a program that hardly allocates.
embedded:
    .ci/run embedded

# Stress tests, by name and for a bounded time.
stress:
    .ci/run stress

# Model-checks the lock-free protocols.
loom:
    .ci/run loom

# The unsafe crates under AddressSanitizer (nightly).
asan:
    .ci/run asan

# Fuzzes every target for a few seconds (nightly).
fuzz:
    .ci/run fuzz
