"""What a client wants to see: read from `Accept`, `Accept-Encoding` and the query; and the answer in that form.

Every answer of the API server is made here: JSON or YAML, indented for people, compressed where it is large, with warnings.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from tulle.control.apiserver import errors

JSON, YAML = "application/json", "application/yaml"
_SERVED = (JSON, YAML)
_MANY = 128 * 1024  # bytes from which an answer is compressed, where the client can read that; as in Kubernetes
_PEOPLE = ("curl/", "Wget/", "Mozilla/5.0")  # who reads with eyes
_WARNINGS = 4096  # characters of all warnings together; where there are more, each is cut
_WARNING = 256

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Form:
    """How objects are to be shown: `kind` is `Table`, `PartialObjectMetadata` or "" (as they are).

    `include`: what a table's rows carry of their objects. `media`: JSON or YAML; `pretty`: indented; `gzip`: may be compressed.
    """

    kind: str = ""
    include: str = "Metadata"
    media: str = JSON
    pretty: bool = False
    gzip: bool = False


PLAIN = Form()


def form(accept: str, query: Mapping[str, str], *, agent: str = "", encoding: str = "") -> Form:
    """The form that an `Accept` header prefers, of those served. Raises a `Denial` (406) where it accepts none."""
    pretty = query["pretty"] not in ("false", "0") if "pretty" in query else agent.startswith(_PEOPLE)
    return _form(accept, query.get("includeObject") or "Metadata", pretty, encoding)


@functools.lru_cache(maxsize=256)
def _form(accept: str, include: str, pretty: bool, encoding: str) -> Form:
    if include not in ("Metadata", "Object", "None"):
        raise errors.bad_request(f"includeObject: found {include!r}; needed Metadata, Object or None")
    for media, wanted in accepted(accept):
        served = next((one for one in _SERVED if _covers(media, one)), None)
        if served is None:
            continue
        kind = wanted.get("as", "").removesuffix("List")
        if kind and (
            kind not in ("Table", "PartialObjectMetadata")
            or (wanted.get("g", "meta.k8s.io"), wanted.get("v", "v1")) != ("meta.k8s.io", "v1")
        ):
            continue
        return Form(kind, include, served, pretty or wanted.get("pretty") == "1", _gzip(encoding))
    raise errors.not_acceptable(_SERVED)


def accepted(accept: str) -> list[tuple[str, Mapping[str, str]]]:
    """Media types with their parameters, the most wanted first."""
    ranked: list[tuple[float, str, Mapping[str, str]]] = []
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        media, *parameters = [piece.strip() for piece in part.split(";")]
        wanted = {name.strip(): value.strip() for name, _, value in (piece.partition("=") for piece in parameters)}
        quality = wanted.pop("q", "1")
        ranked.append((float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 1.0, media.lower(), wanted))
    ranked.sort(key=lambda one: -one[0])
    return [(media, wanted) for quality, media, wanted in ranked if quality > 0]


def _covers(media: str, served: str) -> bool:
    return media in (served, "*/*", served.partition("/")[0] + "/*")


def _gzip(encoding: str) -> bool:
    return any(part.split(";")[0].strip() == "gzip" and "q=0" not in part for part in encoding.split(","))


def answer(
    body: Mapping[str, Any] | bytes,
    status: int = 200,
    warnings: Sequence[str] = (),
    *,
    how: Form = PLAIN,
    content_type: str = "",
) -> web.Response:
    """The answer with `body` (an object, or its JSON) in the form `how`, and a `Warning:` header for each warning."""
    data = body if isinstance(body, bytes) else encode(body)
    if how.media == YAML:
        data = to_yaml(msgspec.json.decode(data))
    elif how.pretty:
        data = msgspec.json.format(data, indent=2) + b"\n"
    response = web.Response(body=data, status=status, zlib_executor_size=_MANY)
    response.headers["Content-Type"] = content_type or how.media
    if how.gzip and status == 200 and len(data) >= _MANY:
        response.enable_compression(web.ContentCoding.gzip)
        response.headers["Vary"] = "Accept-Encoding"
    for warning in _cut(warnings):
        response.headers.add("Warning", warning)
    return response


def refusal(denial: errors.Denial) -> web.Response:
    """The answer to a request that was denied."""
    response = answer(denial.body, denial.http)
    response.headers.update(denial.headers)
    return response


def _cut(warnings: Sequence[str]) -> list[str]:
    """Each warning once, as a header's value; bounded, for proxies and clients refuse large headers."""
    texts = [one if one.isprintable() else _printable(one) for one in dict.fromkeys(warnings)]
    if sum(map(len, texts)) > _WARNINGS:
        texts = [text[:_WARNING] for text in texts][: _WARNINGS // _WARNING]
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return [f'299 - "{text}"' for text in escaped]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def to_yaml(value: Any) -> bytes:
    """The value as a YAML document that also readers of YAML 1.1 read as it is."""
    import yaml

    dumper = _dumper()
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=True, allow_unicode=True, default_flow_style=False, width=1 << 16)
    return text.encode()


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """No anchors; `y` and `n`, which some readers take for booleans, are quoted."""

        def ignore_aliases(self, data: Any) -> bool:
            """Written out every time."""
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))
    return Dumper
