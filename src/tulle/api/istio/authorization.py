"""AuthorizationPolicy and RequestAuthentication: who may call, and whose tokens are believed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.hosts import subnet_fault
from tulle.api.istio.status import IstioStatus
from tulle.api.istio.targets import Targeted
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.rules import at_most_one
from tulle.api.values import Duration, Many, Words

ServiceAccounts = Annotated[Many[Annotated[str, Field(max_length=320)]], Field(max_length=16)]
NonEmpty = Annotated[str, Field(min_length=1)]
_BLOCKS = ("ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks")


class Source(Ruled):
    """Who calls: all lists must hold, one entry of each suffices."""

    principals: Many[str] | None = None
    not_principals: Many[str] | None = None
    request_principals: Many[str] = ()
    not_request_principals: Many[str] = ()
    namespaces: Many[str] | None = None
    not_namespaces: Many[str] | None = None
    ip_blocks: Many[str] = ()
    not_ip_blocks: Many[str] = ()
    remote_ip_blocks: Many[str] = ()
    not_remote_ip_blocks: Many[str] = ()
    service_accounts: ServiceAccounts | None = None
    not_service_accounts: ServiceAccounts | None = None
    trust_domains: Many[str] = ()
    not_trust_domains: Many[str] = ()

    def faults(self) -> Iterator[Fault]:
        """Something in it; networks; identities said in one way."""
        fields = {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}
        if not any(fields.values()):
            yield Fault((), "found an empty source; needed at least one of its lists", "Required")
        for block in _BLOCKS:
            for index, subnet in enumerate(fields[block]):
                yield from subnet_fault(subnet, block, index)
        identities = ("principals", "notPrincipals", "namespaces", "notNamespaces")
        if fields["serviceAccounts"] is not None or fields["notServiceAccounts"] is not None:
            for name in identities:
                if fields[name] is not None:
                    yield Fault((name,), "found it beside serviceAccounts; needed one of the two", "OneOf")


class From(Schema):
    """A source."""

    source: Source | None = None


class Operation(Ruled):
    """What is asked for: all lists must hold, one entry of each suffices."""

    hosts: Many[str] = ()
    not_hosts: Many[str] = ()
    ports: Many[str] = ()
    not_ports: Many[str] = ()
    methods: Many[str] = ()
    not_methods: Many[str] = ()
    paths: Many[str] = ()
    not_paths: Many[str] = ()

    def faults(self) -> Iterator[Fault]:
        """Something in it; ports are numbers."""
        if not any(getattr(self, name) for name in type(self).model_fields):
            yield Fault((), "found an empty operation; needed at least one of its lists", "Required")
        for field, ports in (("ports", self.ports), ("notPorts", self.not_ports)):
            for index, port in enumerate(ports):
                if not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
                    yield Fault((field, index), f'found "{port}"; needed a port from 1 to 65535')


class To(Schema):
    """An operation."""

    operation: Operation | None = None


_KEYS = (
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.trustDomain",
    "source.serviceAccount",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
)
_NAMED_KEY = re.compile(r"request\.headers\[.+\]|request\.auth\.claims(\[[^\]]+\])+|experimental\.envoy\.filters\..+")


class Condition(Ruled):
    """A condition on an attribute of a request."""

    key: str
    values: Many[str] = ()
    not_values: Many[str] = ()

    def faults(self) -> Iterator[Fault]:
        """A known attribute and values."""
        if self.key not in _KEYS and not _NAMED_KEY.fullmatch(self.key):
            known = ", ".join([*_KEYS, "request.headers[NAME]", "request.auth.claims[NAME]"])
            yield Fault(("key",), f'found "{self.key}"; needed one of {known}', "BadEnum")
        if not self.values and not self.not_values:
            yield Fault((), "found no values; needed values or notValues", "Required")
        if self.key in ("source.ip", "remote.ip", "destination.ip"):
            for field, values in (("values", self.values), ("notValues", self.not_values)):
                for index, subnet in enumerate(values):
                    yield from subnet_fault(subnet, field, index)


class Rule(Ruled):
    """A match: one of `from_`, one of `to` and all of `when`."""

    from_: Annotated[Many[From], Field(max_length=512)] | None = Field(default=None, alias="from")
    to: Many[To] | None = None
    when: Many[Condition] = ()

    def faults(self) -> Iterator[Fault]:
        """No empty lists, which would match nothing or everything."""
        for field, entries in (("from", self.from_), ("to", self.to)):
            if entries is None:
                continue
            if not entries:
                yield Fault((field,), "found an empty list; needed at least one entry, or no list", "Required")
            for index, entry in enumerate(entries):
                if isinstance(entry, From) and entry.source is None:
                    yield Fault((field, index, "source"), "found nothing; needed a source", "Required")
                if isinstance(entry, To) and entry.operation is None:
                    yield Fault((field, index, "operation"), "found nothing; needed an operation", "Required")


class Provider(Schema):
    """An external authorizer of the mesh's configuration."""

    name: str = ""


class AuthorizationPolicySpec(Targeted):
    """What happens to the requests that match; no rule matches nothing, an empty rule everything."""

    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: Provider | None = None
    rules: Annotated[Many[Rule], Field(max_length=512)] = ()

    def faults(self) -> Iterator[Fault]:
        """A provider where the action is CUSTOM, and only there."""
        yield from super().faults()
        if self.action == "CUSTOM":
            if self.provider is None or not self.provider.name:
                yield Fault(("provider",), "found nothing; needed provider.name, for the action is CUSTOM", "Required")
            if not self.rules:
                yield Fault(("rules",), "found none; needed at least one rule, for the action is CUSTOM", "Required")
        elif self.provider is not None:
            yield Fault(("provider",), f"found it with the action {self.action}; needed none, or the action CUSTOM", "OneOf")


class AuthorizationPolicy(Object):
    """Istio's AuthorizationPolicy."""

    kind: Literal["AuthorizationPolicy"] = "AuthorizationPolicy"
    spec: AuthorizationPolicySpec = Field(default_factory=AuthorizationPolicySpec)
    status: IstioStatus | None = None


class JWTHeader(Schema):
    """A header that has the token, after a prefix."""

    name: NonEmpty
    prefix: str = ""


_CLAIM_HEADER = "^[-_A-Za-z0-9]+$"


class ClaimToHeader(Schema):
    """A claim that is passed on in a header."""

    claim: NonEmpty
    header: Annotated[str, Field(min_length=1, pattern=_CLAIM_HEADER), Words('a header name of letters, digits, "-" and "_"')]


Url = Annotated[str, Field(min_length=1, max_length=2048)]


class JWTRule(Ruled):
    """Tokens of an issuer: where they are found and how they are checked."""

    issuer: NonEmpty | None = None
    audiences: Many[NonEmpty] = ()
    jwks_uri: Url | None = None
    jwks_uri_older: Url | None = Field(default=None, alias="jwks_uri")
    jwks: str | None = None
    from_headers: Many[JWTHeader] = ()
    from_params: Many[NonEmpty] = ()
    from_cookies: Many[NonEmpty] = ()
    output_payload_to_header: str = ""
    forward_original_token: bool = False
    output_claim_to_headers: Many[ClaimToHeader] = ()
    timeout: Duration | None = None
    presence: Literal["OPTIONAL", "REQUIRED"] = "OPTIONAL"
    space_delimited_claims: Annotated[Many[NonEmpty], Field(max_length=64)] = ()

    def faults(self) -> Iterator[Fault]:
        """One source of keys."""
        yield from at_most_one(self, "jwksUri", "jwks_uri", "jwks")
        for field, url in (("jwksUri", self.jwks_uri), ("jwks_uri", self.jwks_uri_older)):
            if url is not None and not url.startswith(("http://", "https://")):
                yield Fault((field,), f'found "{url}"; needed a URL that starts with http:// or https://')
            elif url is not None and not url.partition("://")[2].strip("/"):
                yield Fault((field,), f'found "{url}"; needed a URL with a host')


class RequestAuthenticationSpec(Targeted):
    """Tokens that are believed; a request without one passes, one with a bad one does not."""

    jwt_rules: Annotated[Many[JWTRule], Field(max_length=4096)] = ()


class RequestAuthentication(Object):
    """Istio's RequestAuthentication."""

    kind: Literal["RequestAuthentication"] = "RequestAuthentication"
    spec: RequestAuthenticationSpec = Field(default_factory=RequestAuthenticationSpec)
    status: IstioStatus | None = None
