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
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing" >&2
    apt-get update -qq >&2
    # shellcheck disable=SC2086 - a list of words is meant
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >&2 \
        || echo "could not install$missing: $without" >&2
else
    echo "missing$missing: $without. On Debian and Ubuntu: sudo apt-get install$missing" >&2
fi
exit 0
