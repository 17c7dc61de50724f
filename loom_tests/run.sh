#!/usr/bin/env bash
# Runs every loom model, then every negative control, which must fail; prints a summary.
#
#   loom_tests/run.sh                 all models and controls
#   loom_tests/run.sh epoch_grace     the named models and their controls
#
# Environment: LOOM_MAX_PREEMPTIONS (default 3), FLAGSTONE_LOOM_SECONDS per test binary (default 900).
# A failure is replayed with LOOM_LOG=trace and, for its schedule, LOOM_CHECKPOINT_FILE: see the loom
# manual. Exit status: 0 only if every model passed and every control failed as a test.
set -euo pipefail
cd "$(dirname "$0")/.."

limit="${FLAGSTONE_LOOM_SECONDS:-900}"
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
# Assertions of the code under test are part of the models; link-time optimisation is not.
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_LTO=off
export RUST_BACKTRACE=0
log="$target/loom/log"
mkdir -p "$log"

models=("$@")
if [ ${#models[@]} -eq 0 ]; then
    for file in loom_tests/tests/*.rs; do models+=("$(basename "$file" .rs)"); done
fi

failures=0
report() { printf '%-8s %s\n' "$1" "$2"; }
fail() { report FAIL "$1"; failures=$((failures + 1)); }

# Sets the flags that one model asks for; each set of flags has a target directory of its own.
flags() {
    local name
    export RUSTFLAGS="--cfg flagstone_loom" CARGO_TARGET_DIR="$target/loom"
    while read -r name; do
        RUSTFLAGS+=" --cfg $name"
        CARGO_TARGET_DIR+="-$name"
    done < <(sed -n 's|^//! needs: ||p' "loom_tests/tests/$1.rs")
}

# Compiles one model's test binary, so that a later failure is the model's and not the compiler's.
build() {
    cargo test -q -p flagstone-loom-tests --release --test "$1" --no-run >"$2" 2>&1
}

# Runs it. Loom models are deterministic; one thread keeps their output in order.
run() {
    timeout "$limit" cargo test -q -p flagstone-loom-tests --release --test "$1" -- \
        --nocapture --test-threads=1 >"$2" 2>&1
}

for model in "${models[@]}"; do
    out="$log/$model.log"
    flags "$model"
    if ! build "$model" "$out"; then
        fail "model $model does not compile: $out"
    elif run "$model" "$out"; then
        grep -h ' executions, ' "$out" | sed 's|^\.*||' | while read -r line; do report pass "model $line"; done
    else
        fail "model $model: $(grep -m1 -A1 'panicked at' "$out" | tail -1 || true) ($out)"
    fi
done

for model in "${models[@]}"; do
    flags "$model"
    controls=$(sed -n 's|^//! control: ||p' "loom_tests/tests/$model.rs")
    if [ -z "$controls" ]; then
        fail "model $model names no control"
        continue
    fi
    for control in $controls; do
        # Only the workspace's crates are compiled anew for a control: cargo keys their artifacts by
        # the path of this wrapper.
        wrapper="$CARGO_TARGET_DIR/weaken-$control"
        printf '#!/bin/sh\nexec "$@" --cfg '\''flagstone_weaken="%s"'\''\n' "$control" >"$wrapper"
        chmod +x "$wrapper"
        export RUSTC_WORKSPACE_WRAPPER="$wrapper"
        out="$log/$model-$control.log"
        if ! grep -rqF "flagstone_weaken = \"$control\"" epoch/src slab/src runtime/src; then
            fail "control $control ($model) weakens nothing"
        elif ! build "$model" "$out"; then
            fail "control $control ($model) does not compile: $out"
        elif run "$model" "$out"; then
            fail "control $control ($model) passed: the model does not see the weakened protocol"
        elif grep -q '^test result: FAILED' "$out"; then
            why=$(grep -m1 -A1 'panicked at' "$out" | tail -1)
            report fails "control $control ($model), as it must: $why"
        else
            fail "control $control ($model) ended without a verdict: $out"
        fi
        unset RUSTC_WORKSPACE_WRAPPER
    done
done

if [ "$failures" -gt 0 ]; then
    echo "loom: $failures wrong"
    exit 1
fi
echo "loom: all models pass, all controls fail"
