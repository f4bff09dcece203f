"""Trust bundles as documents: what is written is read again, and nothing else is believed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tulle.control.ca.authority import Authority
from tulle.core.trust_bundle import TrustBundle, document, key_of, parse, public_key, split


def made(folder: Path, trust_domain: str = "cluster.local") -> TrustBundle:
    authority = Authority.open(folder, trust_domain)
    keys = tuple(
        {**public_key(key), "kid": kid}
        for kid, key in (
            ("one", ec.generate_private_key(ec.SECP384R1()).public_key()),
            ("two", rsa.generate_private_key(65537, 2048).public_key()),
        )
    )
    return TrustBundle(trust_domain, split(authority.bundle), keys, sequence=7, refresh=60.0)


def test_a_bundle_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Broken: another trust domain would get other roots or keys than this one has."""
    bundle = made(tmp_path / "ca")
    written = document(bundle)
    assert parse(written, "cluster.local") == bundle
    assert document(parse(written, "cluster.local")) == written
    uses = [key["use"] for key in json.loads(written)["keys"]]
    assert uses == ["x509-svid", "jwt-svid", "jwt-svid"]
    assert b'"d"' not in written, "no private part of a key"
    assert key_of([bundle], "cluster.local", "two") == bundle.keys[1]
    assert key_of([bundle], "other", "two") is None


def test_entries_of_other_uses_are_left_out(tmp_path: Path) -> None:
    """Broken: the standard's next kind of key would cost us the bundle, or be taken for one of these."""
    said = json.loads(document(made(tmp_path / "ca")))
    said["keys"] += [{"use": "wit-svid", "kty": "EC"}, {"kty": "RSA"}]
    read = parse(json.dumps(said), "cluster.local")
    assert (len(read.authorities), len(read.keys)) == (1, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said.pop("keys"), "keys: found none"),
        (lambda said: said["keys"].extend([{}] * 1000), "at most 1000"),
        (lambda said: said["keys"][0].update(x5c=[]), "exactly one certificate"),
        (lambda said: said["keys"][0].update(x5c=["AAAA"]), "base64 of an authority's certificate"),
        (lambda said: said["keys"][0].update(x5c=["*"]), "base64 of an authority's certificate"),
        (lambda said: said["keys"][1].pop("kid"), "kid: needed a name"),
        (lambda said: said["keys"][1].update(kid="two"), "second key of one name"),
        (lambda said: said["keys"][1].update(x="AA"), "needed a public key"),
        (lambda said: said["keys"][1].update(kty="oct", k="c2VjcmV0"), "needed a public key"),
        (lambda said: said["keys"][2].update(n="AQAB"), "needed"),
        (lambda said: said.update(spiffe_sequence=-1), "spiffe_sequence"),
        (lambda said: said.update(spiffe_refresh_hint="soon"), "spiffe_refresh_hint"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_taken(tmp_path: Path, change: Any, words: str) -> None:
    """Broken: half a bundle would be trusted, or a mistake in one would not be found by who made it."""
    said = json.loads(document(made(tmp_path / "ca")))
    change(said)
    with pytest.raises(ValueError, match=words):
        parse(json.dumps(said), "cluster.local")


def test_a_leaf_or_another_trust_domains_root_is_no_authority(tmp_path: Path) -> None:
    """Broken: who holds a certificate of a workload could sign for its whole trust domain; a partner speak for another."""
    bundle = made(tmp_path / "ca")
    with pytest.raises(ValueError, match=r"authority of spiffe://cluster\.local"):
        parse(document(bundle), "other.example")
    leaf = Authority.open(tmp_path / "ca").issue_server(["a"], 60).chain
    said = json.loads(document(bundle))
    der = base64.b64encode(base64.b64decode(b"".join(leaf.splitlines()[1:-1]))).decode()
    said["keys"][0]["x5c"] = [der]
    with pytest.raises(ValueError, match="no authority's"):
        parse(json.dumps(said), "cluster.local")


def test_no_json_is_no_bundle() -> None:
    """Broken: an error page would end the task that fetches."""
    for text in ("<html>", "[]", '{"keys": 1}', "[" * 100_000):
        with pytest.raises(ValueError, match="found"):
            parse(text, "cluster.local")
