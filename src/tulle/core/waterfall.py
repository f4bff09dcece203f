"""The spans of a trace → its steps from top to bottom, each below the one that made it. Pure.

Hosts have clocks of their own. A call that begins before it was made, or when nobody waited any more, was told by a clock that is
wrong: it is moved, with all that it called from there, into the middle of the span that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tulle.core.model.spans import CLIENT, SERVER, Span, Step, Summary, Trace

_DEEP = 200  # below that, spans are shown beside each other


def trace(spans: Iterable[Span]) -> Trace | None:
    """The trace that these spans make up; None without any. A span that comes twice counts once."""
    by_id = {span.id: span for span in spans}
    if not by_id:
        return None
    children: dict[str, list[Span]] = {}
    for span in by_id.values():
        children.setdefault(span.parent if span.parent in by_id else "", []).append(span)
    placed = list(_placed(by_id, children))
    begin = min(start for _span, _depth, start in placed)
    end = max(start + span.duration for span, _depth, start in placed)
    steps = (
        Step(
            id=span.id,
            parent=span.parent,
            depth=depth,
            workload=span.workload,
            service=span.service,
            version=span.version,
            kind=span.kind,
            name=span.name,
            start=(start - begin) / 1000,
            duration=span.duration / 1000,
            failed=span.failed,
            moved=(start - span.start) / 1000,
            lost=bool(span.parent) and span.parent not in by_id,
            tags=span.tags,
        )
        for span, depth, start in placed
    )
    return Trace(placed[0][0].trace, begin / 1_000_000, (end - begin) / 1000, tuple(steps))


def _placed(by_id: dict[str, Span], children: dict[str, list[Span]]) -> Iterator[tuple[Span, int, int]]:
    """Each span with its depth and its start (µs) once the clocks are put right. Each once, whatever the parents say."""
    seen: set[str] = set()
    # Spans that are each other's parents hang below nothing: they are begun with like those whose parent is lost.
    for first in (*sorted(children.get("", ()), key=_begin), *sorted(by_id.values(), key=_begin)):
        below = [(first, 0, 0)]
        while below:
            span, depth, moved = below.pop()
            if span.id in seen:
                continue
            seen.add(span.id)
            start = span.start + moved
            yield span, depth, start
            inside = [
                (child, min(depth + 1, _DEEP), moved + _wrong(span, start, child, moved)) for child in children.get(span.id, ())
            ]
            below += sorted(inside, key=lambda one: one[0].start + one[2], reverse=True)


def _wrong(span: Span, start: int, child: Span, moved: int) -> int:
    """By how much (µs) more the clock of a child has to be moved than that of its parent."""
    begun = child.start + moved
    if span.workload == child.workload or start <= begun <= start + span.duration:
        return 0
    return start + max(0, span.duration - child.duration) // 2 - begun


def _begin(span: Span) -> tuple[bool, int]:
    """Where a trace begins comes first; then what began first."""
    return bool(span.parent), span.start


def summary(spans: Iterable[Span], *, kept: bool = False) -> Summary | None:
    """The trace that these spans make up, in a line."""
    there = {span.id: span for span in spans}
    found = trace(there.values())
    if found is None:
        return None
    first = found.steps[0]
    entry = first
    if first.kind == CLIENT and len(found.steps) > 1 and found.steps[1].parent == first.id and found.steps[1].kind == SERVER:
        entry = found.steps[1]  # who called is less telling than what was called
    return Summary(
        trace=found.trace,
        start=found.start,
        duration=found.duration,
        service=entry.service,
        name=entry.name,
        path=entry.path,
        known=not first.lost,
        spans=len(found.steps),
        errors=sum(step.failed for step in found.steps),
        services=tuple(sorted({step.service for step in found.steps})),
        kept=kept,
    )
