#!/usr/bin/env bash
# Runs every loom model, then every negative control, which must fail as its model's head says.
#
#   loom_tests/run.sh                 all models and controls
#   loom_tests/run.sh epoch_grace     the named models, or files of models, and their controls
#
# A model is a file of loom_tests/tests. Its head says, a line each:
#
#   //! needs: CFG                    a cfg that it is compiled with
#   //! control: NAME: MESSAGE        a control, and what its first failure says
#
# A control is the same model over code that is weakened on purpose, where `weakened("NAME")` asks. Two
# builds serve all of them: one without the switches, for the models, and one with `--cfg
# flagstone_weaken`, in which FLAGSTONE_WEAKEN turns one on.
#
# Environment: FLAGSTONE_LOOM_DEEPER, preemptions beyond what a model says it can afford, or
# LOOM_MAX_PREEMPTIONS for all; FLAGSTONE_LOOM_SECONDS per run of a test binary (default 300). A failure
# is replayed with LOOM_LOG=trace and, for its schedule, LOOM_CHECKPOINT_FILE: see the loom manual. Exit
# status: 0 only if every model was completed and every control failed as it must.
set -euo pipefail
cd "$(dirname "$0")/.."

limit="${FLAGSTONE_LOOM_SECONDS:-300}"
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
# Assertions of the code under test are part of the models; link-time optimisation is not.
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_LTO=off
export RUST_BACKTRACE=0
log="$target/loom/log"
mkdir -p "$log"

models=("$@")
if [ ${#models[@]} -eq 0 ]; then
    models=(loom_tests/tests/*.rs)
fi
models=("${models[@]##*/}")
models=("${models[@]%.rs}")

failures=0
report() { printf '%-8s %s\n' "$1" "$2"; }
fail() { report FAIL "$1"; failures=$((failures + 1)); }

# head_lines MODEL KEY: what the model's head says under a key, a line each.
head_lines() {
    sed -n "s|^//! $2: ||p" "loom_tests/tests/$1.rs"
}

# Sets the flags that one model asks for; each set of flags has a target directory of its own.
flags() {
    local name
    export RUSTFLAGS="--cfg flagstone_loom" CARGO_TARGET_DIR="$target/loom"
    while read -r name; do
        RUSTFLAGS+=" --cfg $name"
        CARGO_TARGET_DIR+="-$name"
    done < <(head_lines "$1" needs)
}

# Compiles one model's test binary, so that a later failure is the model's and not the compiler's.
build() {
    cargo test -q -p flagstone-loom-tests --release --test "$1" --no-run >"$2" 2>&1
}

# Compiles all of them, those of one set of flags at once, so that no core idles. What does not compile
# is reported when its turn comes.
build_all() {
    local model needs
    local -A sets=()
    for model in "${models[@]}"; do
        needs=$(head_lines "$model" needs)
        sets[-$needs]+=" $model"
    done
    for needs in "${!sets[@]}"; do
        local tests=()
        for model in ${sets[$needs]}; do tests+=(--test "$model"); done
        flags "$model"
        cargo test -q -p flagstone-loom-tests --release "${tests[@]}" --no-run \
            >"$log/build.log" 2>&1 || true
    done
}

# Runs it. Loom models are deterministic; one thread keeps their output in order.
run() {
    timeout "$limit" cargo test -q -p flagstone-loom-tests --release --test "$1" -- \
        --nocapture --test-threads=1 >"$2" 2>&1
}

# What the first panic says.
first_failure() {
    grep -m1 -A1 'panicked at' "$1" | tail -n 1 || true
}

build_all
for model in "${models[@]}"; do
    out="$log/$model.log"
    flags "$model"
    if ! build "$model" "$out"; then
        fail "model $model does not compile: $out"
        continue
    fi
    since=$SECONDS
    if run "$model" "$out"; then
        took=$((SECONDS - since))
        # Loom's own word that it went through them all; `lib.rs` insists on it.
        grep -h ' executions, ' "$out" | sed 's|^\.*||' | while read -r line; do
            report pass "model $line ($took s)"
        done
    else
        fail "model $model: $(first_failure "$out") ($out)"
    fi
done

# The cfg goes to the workspace's crates alone, through a wrapper, by whose path cargo keys their
# artifacts: the dependencies are compiled once for both builds.
wrapper="$target/loom/weaken"
printf '#!/bin/sh\nexec "$@" --cfg flagstone_weaken\n' >"$wrapper"
chmod +x "$wrapper"
export RUSTC_WORKSPACE_WRAPPER="$wrapper"

build_all
for model in "${models[@]}"; do
    flags "$model"
    if [ -z "$(head_lines "$model" control)" ]; then
        fail "model $model names no control"
        continue
    fi
    if ! build "$model" "$log/$model-controls.log"; then
        fail "the controls of $model do not compile: $log/$model-controls.log"
        continue
    fi
    while read -r line; do
        control="${line%%: *}"
        message="${line#*: }"
        out="$log/$model-$control.log"
        export FLAGSTONE_WEAKEN="$control"
        if [ "$control" = "$line" ]; then
            fail "control $control ($model) does not say how it fails"
        elif ! grep -rqF "weakened(\"$control\")" epoch/src slab/src; then
            fail "control $control ($model) weakens nothing"
        elif status=0 && run "$model" "$out" || { status=$? && false; }; then
            fail "control $control ($model) passed: the model does not see the weakened protocol"
        # A model that fails under a guard may fail once more as it unwinds, and so abort: what counts is
        # what failed first. One that was stopped for want of time has said nothing.
        elif ! grep -q 'panicked at' "$out"; then
            fail "control $control ($model) ended without a verdict, status $status: $out"
        elif ! first_failure "$out" | grep -qF "$message"; then
            fail "control $control ($model) failed for another reason: $(first_failure "$out") ($out)"
        else
            report fails "control $control ($model), as it must: $(first_failure "$out")"
        fi
        unset FLAGSTONE_WEAKEN
    done < <(head_lines "$model" control)
done

if [ "$failures" -gt 0 ]; then
    echo "loom: $failures wrong"
    exit 1
fi
echo "loom: all models completed, all controls fail (${SECONDS} s)"
