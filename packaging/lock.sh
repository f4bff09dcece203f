#!/bin/sh
# Writes both lock files: for every supported Python and platform, with hashes, without the name of any host.
# usage: packaging/lock.sh UV
set -eu
uv=$1
cd "$(dirname "$0")/.."
flags="--quiet --universal --generate-hashes --no-header --no-annotate --no-emit-find-links --python-version 3.11 --upgrade"
flags="$flags --overrides packaging/overrides.txt"

# The development set first; the runtime set then takes the same versions.
# shellcheck disable=SC2086 - flags are words
UV_NO_CONFIG=1 "$uv" pip compile $flags pyproject.toml --group build --group test --group check --group docs --group lock \
    -o requirements-dev.lock
grep -E '^[a-z0-9]' requirements-dev.lock | sed 's/ *\\$//' > requirements.constraints
# shellcheck disable=SC2086
UV_NO_CONFIG=1 "$uv" pip compile $flags pyproject.toml --group build -c requirements.constraints -o requirements.lock
rm -f requirements.constraints
if grep -n '://' requirements.lock requirements-dev.lock; then
    echo "a lock file names a host; nothing of the machine that made it may be in it" >&2
    exit 1
fi
