"""What objects would mean beside those that the mesh has, asked of the control plane before anything is written.

It has judged what stands already. Only where there are more objects than it takes in one question, the mesh is read and all of it
judged here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tulle.api.registry import KINDS
from tulle.cli.files import Given
from tulle.cli.terminal import warn
from tulle.core.analyze.finding import Finding, finding
from tulle.kit.errors import Refused
from tulle.kit.problem import Severity

if TYPE_CHECKING:
    from tulle.api.object import Kind, Object
    from tulle.client.api import ApiClient

MOST = 1000  # objects that the control plane judges in one question
_ABOUT_SECRETS = ("TUL0110", "TUL0310")
_PATH = "/tulle/v1/findings"
_TIMEOUT = 60.0


async def standing(api: ApiClient) -> list[Finding]:
    """The findings of the mesh as it is."""
    answer = await api.request("GET", _PATH, timeout=_TIMEOUT)
    return _findings(answer)


async def judge(api: ApiClient, given: Sequence[Given]) -> list[Finding]:
    """The findings of the given objects, with their lines, and those that they would newly make elsewhere.

    Who may not ask hears so, and gets none.
    """
    if len(given) > MOST:
        found = await _here(api, given)
    else:
        try:
            answer = await api.request("POST", _PATH, body={"objects": [item.raw for item in given]}, timeout=_TIMEOUT)
        except Refused as refused:
            warn(f"not judged beside the mesh: {refused.message}")
            return []
        found = _findings(answer)
    return placed(found, given)


def placed(found: Sequence[Finding], given: Sequence[Given]) -> list[Finding]:
    """Findings of given objects with the place in their files, without those that decoding has told already."""
    by_ref = {item.ref: item for item in given}
    told = {(one.ref, one.path, one.message) for item in given for one in item.problems}
    return [
        msgspec.structs.replace(one, location=by_ref[one.ref].locate(one.path)) if one.ref in by_ref else one
        for one in found
        if (one.ref, one.path, one.message) not in told
    ]


def as_warnings(found: Sequence[Finding], given: Sequence[Given]) -> list[Finding]:
    """For who writes: what others than the given objects would suffer is said, and does not keep anybody from writing."""
    own = {item.ref for item in given}
    return [
        one if one.ref in own or one.severity is not Severity.ERROR else msgspec.structs.replace(one, severity=Severity.WARNING)
        for one in found
    ]


def _findings(answer: Any) -> list[Finding]:
    return msgspec.convert(answer["findings"], list[Finding])


async def _here(api: ApiClient, given: Sequence[Given]) -> list[Finding]:
    """Read the mesh, and judge it here, without and with the given objects."""
    import time

    from tulle.core.analyze.analysis import Analysis, put
    from tulle.core.analyze.inputs import Scope
    from tulle.core.compile.objects import Settings, settings
    from tulle.core.flow import Flow
    from tulle.core.flow.tables import Batch

    flow = Flow()
    batch: Batch = {settings: {"": Settings()}}
    analysis = Analysis(flow)
    there, secrets = await _live(api)
    for (resource, key), one in there.items():
        put(batch, resource, key, one)
        analysis.follow(resource, key, True)
    flow.commit(batch)
    analysis.at(Scope(time.time(), live=True))
    wished = {(item.kind.resource, (item.namespace, item.name)): item.object for item in given}
    found = [finding(problem) for problem in analysis.trial(wished)]
    return found if secrets else [one for one in found if one.code not in _ABOUT_SECRETS]


async def _live(api: ApiClient) -> tuple[dict[tuple[str, tuple[str, str]], Object], bool]:
    """Every object, decoded, and whether Secrets are among them, which not everybody may read.

    One that cannot be decoded is left out, as the control plane leaves it out.
    """
    from tulle.api.decode import decode
    from tulle.core.analyze.inputs import analysed

    kinds = [kind for kind in KINDS if analysed(kind.resource)]
    lists = await asyncio.gather(*(_listed(api, kind) for kind in kinds))
    found: dict[tuple[str, tuple[str, str]], Object] = {}
    for kind, items in zip(kinds, lists, strict=True):
        for raw in items or ():
            body = _whole({field: value for field, value in raw.items() if field != "status"}, kind)
            decoded, _ = decode(body)
            if decoded is not None:
                found[kind.resource, (decoded.metadata.namespace, decoded.metadata.name)] = decoded
    return found, not any(kind.kind == "Secret" and items is None for kind, items in zip(kinds, lists, strict=True))


async def _listed(api: ApiClient, kind: Kind) -> list[dict[str, Any]] | None:
    """All objects of a kind; None where they are Secrets, and may not be read."""
    try:
        items: list[dict[str, Any]] = (await api.list(kind)).get("items", [])
    except Refused:
        if kind.kind != "Secret":
            raise
        return None
    return items


def _whole(raw: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Items of a list come without what the list says for all of them."""
    version = f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
    return {"apiVersion": version, "kind": kind.kind} | dict(raw)
