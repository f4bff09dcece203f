"""Rules of `metadata` that hold for every kind: names, namespaces, labels and annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tulle.api.object import Fault, Kind
from tulle.api.sentences import found
from tulle.api.values import DNS_LABEL, DNS_SUBDOMAIN, WORDS

_LABEL = re.compile(DNS_LABEL.removeprefix("^").removesuffix("$"))
_SUBDOMAIN = re.compile(DNS_SUBDOMAIN.removeprefix("^").removesuffix("$"))
_RFC1035 = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
_WORD = re.compile("[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)

_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_ANNOTATIONS = 256 * 1024  # characters of all annotations together

_NAMES = {
    "label": (_LABEL, 63, WORDS[DNS_LABEL]),
    "subdomain": (_SUBDOMAIN, 253, WORDS[DNS_SUBDOMAIN]),
    "rfc1035": (
        _RFC1035,
        63,
        'a DNS label: lower-case letters, digits and "-", starting with a letter, with a letter or digit at the end',
    ),
    "path": (re.compile(r"(?!\.{1,2}\Z)[^/%]+", re.DOTALL), 1 << 20, 'a name without "/" and "%", and not "." or ".."'),
}


def metadata_faults(kind: Kind, metadata: Any) -> Iterator[Fault]:
    """What is wrong in an object's metadata beyond its types; paths are below `metadata`."""
    if not isinstance(metadata, dict):
        return
    name, generated = metadata.get("name"), metadata.get("generateName")
    if not name and not generated and not (name is not None and not isinstance(name, str)):
        yield Fault(("name",), "found nothing; needed a name", "Required")
    pattern, longest, words = _NAMES[kind.names]
    if isinstance(name, str) and name:
        if not pattern.fullmatch(name):
            yield Fault(("name",), f"found {found(name)}; needed {words}", "BadName")
        elif len(name) > longest:
            yield Fault(("name",), f"found {len(name)} characters; needed at most {longest}", "BadName")
    if isinstance(generated, str) and generated and not pattern.fullmatch(generated + "x"):
        yield Fault(("generateName",), f"found {found(generated)}; needed the beginning of {words}", "BadName")
    namespace = metadata.get("namespace")
    if isinstance(namespace, str) and namespace:
        if not kind.namespaced:
            yield Fault(
                ("namespace",),
                f"found {found(namespace)}; needed none, for a {kind.kind} belongs to no namespace",
                "BadNamespace",
            )
        elif not _LABEL.fullmatch(namespace) or len(namespace) > 63:
            yield Fault(("namespace",), f"found {found(namespace)}; needed {WORDS[DNS_LABEL]}", "BadNamespace")
    yield from _labels(metadata)
    yield from _finalizers(metadata.get("finalizers"))
    yield from _owners(metadata.get("ownerReferences"))


def _labels(metadata: Mapping[str, Any]) -> Iterator[Fault]:
    for field in ("labels", "annotations"):
        entries = metadata.get(field)
        if not isinstance(entries, dict):
            continue
        if field == "annotations":
            size = sum(len(str(key)) + len(str(value)) for key, value in entries.items())
            if size > _ANNOTATIONS:
                yield Fault((field,), f"found {size} characters; needed at most {_ANNOTATIONS} in all", "TooLong")
        for key, value in entries.items():
            if not isinstance(key, str) or not is_label_name(key):
                needed = 'a name of at most 63 letters, digits, "-", "_" and ".", perhaps after a DNS name and "/"'
                yield Fault((field, str(key)), f"found {found(key)} as a key; needed {needed}", "BadLabel")
            if field == "labels" and isinstance(value, str) and value and not is_label_value(value):
                needed = 'at most 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends'
                yield Fault((field, str(key)), f"found {found(value)}; needed {needed}", "BadLabel")


def _finalizers(finalizers: Any) -> Iterator[Fault]:
    for index, name in enumerate(finalizers if isinstance(finalizers, list) else ()):
        if isinstance(name, str) and name not in _STANDARD_FINALIZERS and not ("/" in name and is_label_name(name)):
            needed = f'a DNS name, "/" and a name, or one of {", ".join(_STANDARD_FINALIZERS)}'
            yield Fault(("finalizers", index), f"found {found(name)}; needed {needed}", "BadName")


def _owners(references: Any) -> Iterator[Fault]:
    controllers = []
    for index, one in enumerate(references if isinstance(references, list) else ()):
        if not isinstance(one, dict):
            continue
        at = ("ownerReferences", index)
        for field in ("apiVersion", "kind", "name", "uid"):
            if one.get(field) == "":
                yield Fault((*at, field), "found nothing; needed what the owner has", "Required")
        if (one.get("apiVersion"), one.get("kind")) == ("v1", "Event"):
            yield Fault(at, "found an Event; needed another kind, for an Event owns nothing")
        if one.get("controller") is True:
            controllers.append(index)
    for index in controllers[1:]:
        message = "found true in more than one reference; needed it in at most one, for an object has one controller"
        yield Fault(("ownerReferences", index, "controller"), message)


def is_label_name(key: str) -> bool:
    """Whether Kubernetes takes the text as a label's or an annotation's name."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253):
        return False
    return len(name) <= 63 and bool(_WORD.fullmatch(name))


def is_label_value(value: str) -> bool:
    """Whether Kubernetes takes the text as a label's value."""
    return len(value) <= 63 and bool(_WORD.fullmatch(value))
