#!/bin/sh
# Makes the virtual environment FOLDER from the lock file LOCK, with tulle itself installed editable.
# usage: packaging/venv.sh FOLDER LOCK [PYTHON [--no-compile]]
#
# Everything that is installed is named, with its hash, in the lock file; pip resolves nothing and reaches for nothing else.
# pip is used rather than uv because it follows the machine's own pip configuration (index, proxy, certificates).
set -eu
folder=$1 lock=$2 python=${3:-} compile=${4:---compile}
cd "$(dirname "$0")/.."

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

if [ -z "$python" ]; then
    for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
        if fits "$candidate"; then python=$candidate; break; fi
    done
fi
if [ -z "$python" ] || ! fits "$python"; then
    echo "tulle needs Python 3.11 to 3.14; found ${python:-none of them on PATH}. Set PYTHON=/path/to/python3." >&2
    exit 1
fi

if [ ! -x "$folder/bin/python" ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        # Debian splits venv off its Python.
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "installing python3-venv" >&2
            apt-get update -qq >&2
            DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >&2
        else
            echo "$python has no venv module. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2
            exit 1
        fi
    fi
    "$python" -m venv "$folder"
fi

unset PYTHONDONTWRITEBYTECODE
echo "installing $lock into $folder" >&2
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps "$compile" -r "$lock"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
