"""Values that many kinds share: bounded numbers, names, durations, and the words that errors use for their patterns.

Types here are aliases of `str`, `int` and `tuple` with their bounds as annotations: what is read is a plain value.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

T = TypeVar("T")

# A list in the document, a tuple once read: objects do not change.
Many = Annotated[tuple[T, ...], Strict(False)]
Map = dict[str, T]


@dataclass(frozen=True, slots=True)
class Stated:
    """Marks a field whose default is written into objects when they are stored, as the API's own schema says it.

    Other fields have a default too: what it means that they are not there.
    """


Defaulted = Annotated[T, Stated()]
# A field that may be `null`, and then is as if it were not written.
Nullable = Annotated[T | None, Field(json_schema_extra={"nullable": True})]

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
UInt32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, Field(ge=0)]
Double = Annotated[float, Field(json_schema_extra={"format": "double"})]
Percent = Annotated[float, Field(ge=0, le=100, json_schema_extra={"format": "double"})]
Port = Annotated[int, Field(ge=1, le=65535, json_schema_extra={"format": "int32"})]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL = f"^{_LABEL}$"
DNS_SUBDOMAIN = rf"^{_LABEL}(\.{_LABEL})*$"
HOSTNAME = rf"^(\*\.)?{_LABEL}(\.{_LABEL})*$"
GROUP = rf"^$|^{_LABEL}(\.{_LABEL})*$"
KIND = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"
HEADER_VALUE = r"^[!-~]+([\t ]?[!-~]+)*$"
GATEWAY_DURATION = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"

# What a person reads instead of a regular expression.
WORDS = {
    DNS_LABEL: 'a DNS label: lower-case letters, digits and "-", with a letter or digit at both ends',
    DNS_SUBDOMAIN: 'a DNS name: lower-case letters, digits, "-" and ".", with a letter or digit at both ends of each part',
    HOSTNAME: 'a host name in lower case, which may start with "*."',
    GROUP: 'an API group: a DNS name in lower case, or "" for the core group',
    KIND: "a kind: letters, digits and dashes, starting with a letter",
    HEADER_NAME: "a header name: letters, digits and any of !#$%&'*+-.^_`|~",
    HEADER_VALUE: "a header value: printable ASCII with no space at its ends",
    GATEWAY_DURATION: 'a duration such as "500ms", "10s" or "1m30s" (whole numbers of at most 5 digits; h, m, s, ms)',
}


@dataclass(frozen=True, slots=True)
class Words:
    """What is needed of a value, for a person; stands beside a type."""

    text: str


def words_for(pattern: str) -> str:
    """What a text that does not match `pattern` should have been, for a person."""
    return WORDS.get(pattern) or f"a text that matches {pattern}"


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_PART = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST = 9_223_372_036.0  # seconds in an int64 of nanoseconds


@functools.lru_cache(1024)  # a mesh has few different ones, and each is read when it is checked, compiled and judged
def seconds(duration: str) -> float:
    """The length of a duration ("7s", "1m30s", "0.5s", "0") in seconds; raises ValueError where it is none."""
    if not _DURATION.fullmatch(duration):
        raise ValueError(duration)
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(duration))
    if total > _LONGEST:
        raise ValueError(duration)
    return -total if duration.startswith("-") else total


def _some_duration(value: str) -> str:
    try:
        seconds(value)
    except ValueError:
        raise PydanticCustomError("needed", 'a duration such as "7s", "500ms" or "1m30s"') from None
    return value


def _positive_duration(value: str) -> str:
    _some_duration(value)
    if seconds(value) < 0.001:
        raise PydanticCustomError("needed", 'a duration of at least 1ms, such as "7s"')
    return value


# Istio's durations: Go's syntax. `seconds` reads them. Most must be at least a millisecond.
_A_DURATION = Words('a duration such as "7s", "500ms" or "1m30s"')
Duration = Annotated[str, AfterValidator(_positive_duration), _A_DURATION]
AnyDuration = Annotated[str, AfterValidator(_some_duration), _A_DURATION]
# The Gateway API's durations; "0s" means none.
GatewayDuration = Annotated[str, Field(pattern=GATEWAY_DURATION), Words(WORDS[GATEWAY_DURATION])]


def _int_or_string(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("needed", "an integer or a string")
    return value


# A number, or the name of one: a Service's `targetPort`.
IntOrString = Annotated[
    Any,
    BeforeValidator(_int_or_string),
    WithJsonSchema({"x-kubernetes-int-or-string": True}),
    Words("an integer or a string"),
]

DnsLabel = Annotated[str, Field(pattern=DNS_LABEL, min_length=1, max_length=63)]
SectionName = Annotated[str, Field(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
PreciseHostname = Annotated[str, Field(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
Hostname = Annotated[str, Field(pattern=HOSTNAME, min_length=1, max_length=253)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
Group = Annotated[str, Field(pattern=GROUP, max_length=253)]
KindName = Annotated[str, Field(pattern=KIND, min_length=1, max_length=63)]
HeaderName = Annotated[str, Field(pattern=HEADER_NAME, min_length=1, max_length=256)]
HeaderValue = Annotated[str, Field(pattern=HEADER_VALUE, min_length=1, max_length=4096)]
