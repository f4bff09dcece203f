"""Problems, worded: what was found, what is needed, and what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from tulle.api.object import Schema
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import services
from tulle.core.flow import Fetch
from tulle.kit.problem import Problem, Ref, Severity


def error(ref: Ref, path: str, reason: str, message: str) -> Problem:
    """A mistake: `tulle apply` refuses the object."""
    return Problem(ref=ref, path=path, reason=reason, message=message)


def warning(ref: Ref, path: str, reason: str, message: str) -> Problem:
    """Something that is said, and stands."""
    return Problem(ref=ref, path=path, reason=reason, message=message, severity=Severity.WARNING)


def info(ref: Ref, path: str, reason: str, message: str) -> Problem:
    """Something that one may want to know, and that harms nobody."""
    return Problem(ref=ref, path=path, reason=reason, message=message, severity=Severity.INFO)


def not_yet(ref: Ref, path: str, what: str = "") -> Problem:
    """A field that means something in its API, and nothing here yet."""
    field = path.rpartition(".")[2] or path
    return warning(ref, path, "NotYetSupported", f"{what or field} is not supported yet; it has no effect")


def unsaid(ref: Ref, schema: Schema | None, path: str, said: Iterable[str]) -> Iterator[Problem]:
    """A problem for each written field of `schema` that is not one of those that have an effect (snake_case)."""
    if schema is None:
        return
    fields = type(schema).model_fields
    for name in sorted(schema.model_fields_set - set(said)):
        field = fields[name]
        if getattr(schema, name) != field.get_default(call_default_factory=True):
            yield not_yet(ref, f"{path}.{field.alias or name}")


def no_server_name(ref: Ref, path: str, host: str) -> Problem:
    """A host by which TLS is to be told and cannot be (`hostname.tells_tls`)."""
    message = f'found "{host}", which a proxy cannot tell TLS by; needed a whole name, or a wildcard for whole labels ("*.")'
    return warning(ref, path, "NotYetSupported", message)


def meant(name: str, known: Iterable[str]) -> str:
    """`; did you mean ratings?`, or nothing where nothing is near."""
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def no_service(fetch: Fetch, key: Key) -> str:
    """`no Service ratingz in namespace default; did you mean ratings?`."""
    namespace, name = key
    if not namespace:
        return f"{name} is no Service of the mesh, and no host of a ServiceEntry"
    near = meant(name, (other for _namespace, other in fetch.keys(services, "namespace", namespace)))
    if not near:
        elsewhere = sorted(space for space, other in fetch.keys(services) if other == name)
        near = f"; there is one in namespace {elsewhere[0]}: {name}.{elsewhere[0]}" if elsewhere else ""
    return f"no Service {name} in namespace {namespace}{near}"


def sorted_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each once, in the order of object and field."""
    return tuple(sorted(set(problems), key=lambda problem: (str(problem.ref), problem.path, problem.reason, problem.message)))
