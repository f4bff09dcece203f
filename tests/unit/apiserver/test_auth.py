"""Who a certificate's holder is."""

from __future__ import annotations

from typing import Any

import pytest

from tulle.control.apiserver.auth import User, identify


def certificate(common: tuple[str, ...] = (), organizations: tuple[str, ...] = (), uris: tuple[str, ...] = ()) -> dict[str, Any]:
    subject = (*((("organizationName", one),) for one in organizations), *((("commonName", one),) for one in common))
    return {"subject": subject, "subjectAltName": tuple(("URI", uri) for uri in uris)}


def test_identities() -> None:
    """A certificate that reads as somebody else is somebody else's rights."""
    assert identify(None, "td") is None
    assert identify({}, "td") is None
    admin = identify(certificate(("admin",), ("system:masters",)), "td")
    assert admin == User("admin", ("system:masters", "system:authenticated"))
    node = identify(certificate(uris=("spiffe://td/node/n1",)), "td")
    assert node == User("system:node:n1", ("system:nodes", "system:authenticated"), "spiffe://td/node/n1")
    workload = identify(certificate(("admin",), ("system:masters",), ("spiffe://td/ns/default/sa/a",)), "td")
    assert workload is not None
    assert workload.name == "system:serviceaccount:default:a"
    assert workload.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")


@pytest.mark.parametrize(
    "found",
    [
        certificate(("admin",), ("system:masters",), ("spiffe://other/node/n1",)),
        certificate(("admin",), ("system:masters",), ("SPIFFE://td/ns/default/sa/a",)),
        certificate(("admin",), ("system:masters",), ("https://example.com",)),
        certificate(uris=("spiffe://td/node/n1", "spiffe://td/node/n2")),
        certificate(uris=("spiffe://td/node/",)),
        certificate(uris=("spiffe://td/node/a/b",)),
        certificate(uris=("spiffe://td.evil/node/a",)),
        certificate(("alice", "admin"), ("people",)),
        certificate(("",), ("system:masters",)),
        certificate(("ali\nce",), ("people",)),
        certificate(("alice",), ("people\x00system:masters",)),
    ],
)
def test_ambiguous_certificates_are_nobodys(found: dict[str, Any]) -> None:
    """Where two readers of a certificate may see two users in it, one of them could be an administrator."""
    assert identify(found, "td") is None


def test_the_history_names_the_one_who_really_wrote() -> None:
    """Under another's name nobody may hide."""
    assert User("bob").author == "bob"
    assert User("bob", actor="alice").author == "bob (by alice)"
