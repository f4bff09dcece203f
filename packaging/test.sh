#!/bin/sh
# Runs every suite, also after one has failed, and ends with pytest's closing line of each. Fails where one failed.
# usage: packaging/test.sh VENV
set -u
cd "$(dirname "$0")/.."
python=$1/bin/python
logs=build/test
mkdir -p "$logs"
rm -f "$logs"/*
failed=0

suite() { # suite NAME COMMAND...
    name=$1
    shift
    echo "== $name"
    { "$@" 2>&1; echo $? >"$logs/$name.status"; } | tee "$logs/$name.log"
    [ "$(cat "$logs/$name.status")" = 0 ] || failed=1
}

# Two at a time: each of the end-to-end workers has a mesh of its own, and its files share it one after the other.
suite "fast" "$python" -m pytest -q tests/unit tests/playbook tests/property tests/conformance tests/golden -n 2 --dist loadfile
suite "end-to-end" "$python" -m pytest -q tests/e2e -n 2 --dist loadfile --no-loadscope-reorder --durations=40
suite "other-pythons" sh packaging/pythons.sh "$1"

echo
for status in "$logs"/*.status; do
    name=$(basename "$status" .status)
    grep -E '^(=+ )?[0-9]+ (passed|failed|skipped|error|xfailed|deselected).* in [0-9.]+s' "$logs/$name.log" | sed "s/^/$name: /"
    [ "$(cat "$status")" = 0 ] || echo "$name: FAILED (exit status $(cat "$status")); its output is in $logs/$name.log"
done
exit $failed
