# Shared by the steps, which `.ci/run` starts in the repository's root: strict mode, and words for
# "failed" and "cannot run here".
# shellcheck shell=bash
set -euo pipefail

# The exit status of a step that could not run (as in Automake's test protocol).
readonly SKIPPED_STATUS=77

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

skip() {
  printf 'skipped: %s\n' "$*" >&2
  exit "$SKIPPED_STATUS"
}

has() {
  command -v "$1" >/dev/null
}

# need PROGRAM PACKAGE: fails with the way out when a program is missing.
need() {
  has "$1" || fail "$1 is missing: install Debian's package $2, or run .ci/run install"
}
