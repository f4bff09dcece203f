"""Secrets and ConfigMaps → the certificates of a gateway: which can be served, and the secrets that its Envoy asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tulle.core.compile.certificates import Certificates, Material
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import config_maps, secrets
from tulle.core.flow import Fetch, Input, table
from tulle.core.model.gateway import GatewaySecret, SecretRef

_SOURCES: Mapping[str, Input[Key, Certificates]] = {"Secret": secrets, "ConfigMap": config_maps}


def certificates_of(fetch: Fetch, kind: str, key: Key) -> Certificates | None:
    """What a Secret or ConfigMap holds; None where there is none, or where it is another kind."""
    source = _SOURCES.get(kind)
    return fetch(source, key) if source is not None else None


def pair_ref(key: Key) -> SecretRef:
    """The certificate of a Secret, with its key."""
    return SecretRef((("Secret", *key),))


def authorities_ref(objects: Iterable[tuple[str, Key]]) -> SecretRef:
    """The certificates of Secrets and ConfigMaps that clients are checked with."""
    return SecretRef(tuple((kind, *key) for kind, key in objects), authorities=True)


def pair_fault(fetch: Fetch, key: Key) -> str:
    """Why a Secret's certificate cannot be served; "" where it can."""
    secret = fetch(secrets, key)
    if secret is None:
        return f"no Secret {key[1]} in namespace {key[0]}"
    if not secret.pair:
        return f"Secret {key[0]}/{key[1]} has no certificate in tls.crt with its key in tls.key"
    return f"Secret {key[0]}/{key[1]} cannot be served: {secret.fault}" if secret.fault else ""


def authorities_fault(fetch: Fetch, kind: str, key: Key) -> str:
    """Why clients cannot be checked with what is in an object; "" where they can."""
    found = certificates_of(fetch, kind, key)
    if found is None:
        return f"no {kind} {key[1]} in namespace {key[0]}"
    return "" if found.authorities else f"{kind} {key[0]}/{key[1]} has no certificates in ca.crt"


@table
def gateway_secret(fetch: Fetch, key: tuple[Key, SecretRef]) -> GatewaySecret | None:
    """A secret of (gateway workload, what it is made of); None while one of its objects cannot be used."""
    found = materials(fetch, key[1])
    return GatewaySecret(key[1], tuple(one.fingerprint for one in found)) if found else None


def materials(fetch: Fetch, ref: SecretRef) -> tuple[Material, ...]:
    """What is in the objects of a secret, with the keys: for the encoder of the gateway's secrets alone."""
    found: list[Material] = []
    for kind, namespace, name in ref.objects:
        row = certificates_of(fetch, kind, (namespace, name))
        usable = row is not None and (row.authorities if ref.authorities else row.pair and not row.fault)
        if row is None or row.material is None or not usable:
            return ()
        found.append(row.material)
    return tuple(found)
