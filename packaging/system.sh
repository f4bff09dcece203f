#!/bin/sh
# Installs the system programs that the demo (capture by network namespaces, a curl to call with) or the tests use, where it
# may; names them where it may not.
# usage: packaging/system.sh {demo|test}
#
# Never fails: without them the demo captures by proxy and says so, and a test that lacks its program says so and is skipped.
set -u
case ${1:-test} in
    demo) without="the demo gives applications an HTTP proxy instead of network namespaces" ;;
    *) without="the tests that need them will be skipped" ;;
esac

missing=""
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] || missing="$missing $2"
}
need nft nftables
need ip iproute2
need unshare util-linux
need curl curl
if [ "${1:-test}" != demo ]; then
    need openssl openssl
    need etcd etcd-server
    need prometheus prometheus
    need promtool prometheus
    # Clients and servers that people use, seen through the mesh.
    need h2load nghttp2-client
    need mariadbd mariadb-server-core
    need mariadb mariadb-client-core
    need redis-server redis-server
    need redis-cli redis-tools
    need chromium-headless-shell chromium-headless-shell
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing" >&2
    apt-get update -qq >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 - a list of words is meant
    if ! apt-get install -qq -y --no-install-recommends $missing >&2; then
        # One that this distribution does not have keeps no other away.
        for package in $missing; do
            apt-get install -qq -y --no-install-recommends "$package" >&2 || echo "could not install $package: $without" >&2
        done
    fi
else
    echo "missing$missing: $without. On Debian and Ubuntu: sudo apt-get install$missing" >&2
fi
exit 0
