#!/bin/sh
# What `make check` asks once the format is right: the unit tests, and what reads the sources beside them. Fails where one does.
# usage: packaging/check.sh VENV
#
# Layers, types and known vulnerabilities take one processor or only wait for an answer; the tests are on two. Whatever is wrong
# with the sources is said when the tests have ended, for lines of both would be mixed.
set -u
cd "$(dirname "$0")/.."
bin=$1/bin
said=$(mktemp)
trap 'rm -f "$said"' EXIT

sources() {
    wrong=0
    out=$("$bin/lint-imports" --no-logo 2>&1) || { wrong=1; echo "$out"; }
    "$bin/mypy" || wrong=1
    "$bin/python" packaging/audit.py "$1" || wrong=1
    return $wrong
}

sources "$1" >"$said" 2>&1 &
sources=$!
failed=0
"$bin/python" -m pytest -q tests/unit -n 2 --dist loadfile || failed=1
wait "$sources" || failed=1
cat "$said"
exit $failed
