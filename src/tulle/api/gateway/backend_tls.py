"""BackendTLSPolicy of the Gateway API: TLS from the proxy to a backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.gateway.shared import ExtensionRef
from tulle.api.gateway.status import PolicyStatus
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.values import Group, Hostname, KindName, Many, Map, ObjectName, PreciseHostname, SectionName, Words

URI = r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
WELL_KNOWN = rf"^(System|({_LABEL}(\.{_LABEL})*/([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]))$"

WellKnown = Annotated[str, Field(pattern=WELL_KNOWN, min_length=1, max_length=253), Words('"System" or a name with a DNS prefix')]


class PolicyTarget(Schema):
    """A Service, or one port of it by name."""

    group: Group
    kind: KindName
    name: ObjectName
    section_name: SectionName | None = None


class SubjectAltName(Ruled):
    """A name that the backend's certificate may have."""

    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: (
        Annotated[
            str, Field(pattern=URI, min_length=1, max_length=253), Words('a URI such as "spiffe://cluster.local/ns/a/sa/b"')
        ]
        | None
    ) = None

    def faults(self) -> Iterator[Fault]:
        """What the type needs, and only that."""
        for field, value in (("hostname", self.hostname), ("uri", self.uri)):
            chosen = self.type.lower() == field
            if chosen and value is None:
                yield Fault((field,), f"found nothing; needed it, for the type is {self.type}", "Required")
            if not chosen and value is not None:
                yield Fault((field,), f"found it with type {self.type}; needed none", "OneOf")


class BackendTLSValidation(Ruled):
    """How the backend's certificate is checked."""

    ca_certificate_refs: Annotated[Many[ExtensionRef], Field(max_length=8)] = ()
    well_known_ca_certificates: WellKnown | None = Field(default=None, alias="wellKnownCACertificates")
    hostname: PreciseHostname
    subject_alt_names: Annotated[Many[SubjectAltName], Field(max_length=5)] = ()

    def faults(self) -> Iterator[Fault]:
        """One source of authorities."""
        if self.ca_certificate_refs and self.well_known_ca_certificates:
            yield Fault((), "found caCertificateRefs and wellKnownCACertificates; needed one of the two", "OneOf")
        if not self.ca_certificate_refs and not self.well_known_ca_certificates:
            yield Fault((), "found neither caCertificateRefs nor wellKnownCACertificates; needed one of the two", "OneOf")


class BackendTLSPolicySpec(Ruled):
    """TLS towards some Services."""

    target_refs: Annotated[Many[PolicyTarget], Field(min_length=1, max_length=16)]
    validation: BackendTLSValidation
    options: Annotated[Map[Annotated[str, Field(min_length=0, max_length=4096)]], Field(max_length=16)] = Field(
        default_factory=dict
    )

    def faults(self) -> Iterator[Fault]:
        """Targets told apart by their section."""
        for index, this in enumerate(self.target_refs):
            for earlier in self.target_refs[:index]:
                if (this.group, this.kind, this.name) != (earlier.group, earlier.kind, earlier.name):
                    continue
                if this.section_name == earlier.section_name or not (this.section_name and earlier.section_name):
                    message = f"found {this.kind} {this.name} twice; needed a sectionName of its own in each"
                    yield Fault(("targetRefs", index), message, "Duplicate")
                    break


class BackendTLSPolicy(Object):
    """A BackendTLSPolicy of the Gateway API."""

    kind: Literal["BackendTLSPolicy"] = "BackendTLSPolicy"
    spec: BackendTLSPolicySpec
    status: PolicyStatus | None = None
