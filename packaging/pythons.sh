#!/bin/sh
# Runs the unit and playbook tests on every Python 3.11 to 3.14 that this machine has, besides the one of the project's environment.
# usage: packaging/pythons.sh VENV
#
# All of them side by side, each in one process: two workers for one Python would each import and collect everything, and one of
# two processors would wait while an environment is made. What each says is printed when it has ended.
set -eu
venv=$1
cd "$(dirname "$0")/.."
own=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

find_python() { # find_python VERSION: prints its path; nothing where there is none
    for candidate in "$(command -v "python$1" || true)" "$HOME/.pyenv/versions/$1".*/bin/python; do
        # A shim may stand for a version that is not there.
        if [ -n "$candidate" ] && "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

run_tests() { # run_tests FOLDER PYTHON WORKERS
    if [ ! -e "$1/.done" ] || [ requirements-dev.lock -nt "$1/.done" ]; then
        # Not compiled: of what is installed a fourth is imported, and Python compiles that by itself.
        sh packaging/venv.sh "$1" requirements-dev.lock "$2" --no-compile || return 1
        touch "$1/.done"
    fi
    "$1/bin/python" -m pytest -q tests/unit tests/playbook -n "$3" --dist loadfile -p no:cacheprovider
}

versions="" workers=2
for version in 3.11 3.12 3.13 3.14; do
    [ "$version" != "$own" ] && [ -n "$(find_python "$version")" ] || continue
    [ -z "$versions" ] || workers=0
    versions="$versions $version"
done
started=""
for version in $versions; do
    folder=build/python$version
    mkdir -p build
    run_tests "$folder" "$(find_python "$version")" "$workers" >"$folder.log" 2>&1 &
    started="$started $version:$!"
done
status=0
for one in $started; do
    wait "${one#*:}" || status=1
    echo "== Python ${one%:*}"
    cat "build/python${one%:*}.log"
done
exit $status
