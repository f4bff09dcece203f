#!/bin/sh
# Runs the unit tests on every Python 3.11 to 3.14 that this machine has, besides the one of the project's environment.
# usage: packaging/pythons.sh VENV
set -eu
venv=$1
cd "$(dirname "$0")/.."
own=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
status=0
for version in 3.11 3.12 3.13 3.14; do
    [ "$version" != "$own" ] || continue
    python=""
    for candidate in "$(command -v "python$version" || true)" "$HOME/.pyenv/versions/$version".*/bin/python; do
        # A shim may stand for a version that is not there.
        if [ -n "$candidate" ] && "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
            python=$candidate
        fi
    done
    [ -n "$python" ] || continue
    folder=build/python$version
    if [ ! -e "$folder/.done" ] || [ requirements-dev.lock -nt "$folder/.done" ]; then
        sh packaging/venv.sh "$folder" requirements-dev.lock "$python"
        touch "$folder/.done"
    fi
    echo "== Python $version"
    "$folder/bin/python" -m pytest -q tests/unit tests/playbook -n 2 --dist loadfile -p no:cacheprovider || status=1
done
exit $status
