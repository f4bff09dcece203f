"""What AuthorizationPolicy says of a request → facts of the model: Istio's wildcards, paths, hosts and identities.

A request can be written in several ways that an application may take for one. Where a match takes something away (a DENY, or a
`not...` of an ALLOW) it is `broad`: it holds for each of them. Where it gives something it holds for the plain way alone. So in
doubt nobody passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from tulle.core.model.authorization import Attribute, Compare, Fact

Facts = tuple[Fact, ...]

# Several slashes, and escaped ones, are one slash to many an application.
_SLASH = r"(?:/|\\|%2[fF]|%5[cC])+"
# So are those with parameters before them (`/a;b/`), which some leave out.
_BROAD_SLASH = r"(?:(?:;[^/]*)?(?:/|\\|%2[fF]|%5[cC]))+"
# And what may stand at the end: parameters, a slash.
_BROAD_END = rf"(?:;.*)?(?:{_BROAD_SLASH})?"
_TEMPLATE = re.compile(r"\{\*\*?\}")
_SPIFFE = "spiffe://"
_PORT = re.compile(r":(\d+|\*)$")
_UNKNOWN = Fact(Attribute.UNKNOWN)
# The pointer to the mesh's own trust domain, whatever that is called.
_LOCAL = "cluster.local"

# Paths in which an application that reads escapes may find a way up. What an honest client sends has none left by now.
HIDDEN_DOTS = rf".*{_SLASH}(?:\.|%2[eE]){{1,2}}(?:{_SLASH}.*)?"

# Two `Host` headers, and a user before the host.
TWO_HOSTS = ".*[,@].*"


def wild(attribute: Attribute, value: str, name: tuple[str, ...] = ()) -> Fact:
    """A value with Istio's wildcards: `*`, `prefix*`, `*suffix`."""
    if value == "*":
        return Fact(attribute, "", Compare.PRESENT, name)
    if value.startswith("*"):
        return Fact(attribute, value[1:], Compare.SUFFIX, name)
    if value.endswith("*"):
        return Fact(attribute, value[:-1], Compare.PREFIX, name)
    return Fact(attribute, value, Compare.EXACT, name)


def paths(values: Iterable[str], broad: bool) -> Facts:
    """Paths with wildcards at their ends, or templates: `{*}` is one segment, `{**}` any number of them."""
    return tuple(_path(value, broad) for value in values)


def _path(value: str, broad: bool) -> Fact:
    template = _TEMPLATE.search(value) is not None
    plain = wild(Attribute.PATH, value)
    if not template and (not broad or plain.compare is Compare.PRESENT):
        return plain
    case, end = ("(?i)", _BROAD_END) if broad else ("", "")
    if template:
        inner = _between(value, _TEMPLATE, lambda found: ".*" if found == "{**}" else "[^/]+", broad)
        return Fact(Attribute.PATH, f"{case}{inner}{end}", Compare.REGEX)
    inner = _literal(plain.value, broad)
    before = ".*" if plain.compare is Compare.SUFFIX else ""
    after = ".*" if plain.compare is Compare.PREFIX else end
    return Fact(Attribute.PATH, f"{case}{before}{inner}{after}", Compare.REGEX)


def _between(text: str, mark: re.Pattern[str], meaning: Callable[[str], str], broad: bool) -> str:
    made, place = "", 0
    for found in mark.finditer(text):
        made += _literal(text[place : found.start()], broad) + meaning(found[0])
        place = found.end()
    return made + _literal(text[place:], broad)


def _literal(text: str, broad: bool) -> str:
    if not broad:
        return re.escape(text)
    parts = (_BROAD_SLASH if set(part) == {"/"} else re.escape(part) for part in re.split(r"(/+)", text) if part)
    return "".join(parts)


def hosts(values: Iterable[str]) -> Facts:
    """Hosts of `:authority`: in any case, with or without dots at the end, and at any port where none is said."""
    return tuple(_host(value) for value in values)


def _host(value: str) -> Fact:
    name = (":authority",)
    if value == "*":
        return Fact(Attribute.HEADER, "", Compare.PRESENT, name)
    if value.endswith("*") and not value.endswith(":*"):
        return Fact(Attribute.HEADER, f"(?i){re.escape(value[:-1])}.*", Compare.REGEX, name)
    port = _PORT.search(value)
    host = value[: port.start()] if port else value
    said = ":.*" if port and port[1] == "*" else re.escape(port[0]) if port else r"(?::[0-9]*)?"
    before = ".*" if host.startswith("*") else ""
    text = re.escape(host.removeprefix("*").removesuffix("."))
    return Fact(Attribute.HEADER, rf"(?i){before}{text}\.*{said}", Compare.REGEX, name)


def headers(name: str, values: Iterable[str], broad: bool) -> Facts:
    """A header by name; several of one name are one list with commas, of which a broad match looks at each."""
    lower = name.lower()
    if lower in ("host", ":authority"):
        return hosts(values)
    plain = (wild(Attribute.HEADER, value, (lower,)) for value in values)
    return tuple(_listed(one) if broad else one for one in plain)


def _listed(fact: Fact) -> Fact:
    if fact.compare is Compare.PRESENT:
        return fact
    text = re.escape(fact.value)
    before = ".*" if fact.compare is Compare.SUFFIX else r"(?:.*,)?\s*"
    after = ".*" if fact.compare is Compare.PREFIX else r"\s*(?:,.*)?"
    return Fact(fact.attribute, f"{before}{text}{after}", Compare.REGEX, fact.name)


def methods(values: Iterable[str], broad: bool) -> Facts:
    """HTTP methods; a broad match takes them in any case, as some applications do."""
    found = (wild(Attribute.HEADER, value, (":method",)) for value in values)
    return tuple(_any_case(one) if broad else one for one in found)


def _any_case(fact: Fact) -> Fact:
    if fact.compare is Compare.PRESENT:
        return fact
    before = ".*" if fact.compare is Compare.SUFFIX else ""
    after = ".*" if fact.compare is Compare.PREFIX else ""
    return Fact(fact.attribute, f"(?i){before}{re.escape(fact.value)}{after}", Compare.REGEX, fact.name)


def ports(values: Iterable[str]) -> Facts:
    """Ports, by the number that callers know."""
    return tuple(
        Fact(Attribute.DESTINATION_PORT, value) if value.isdecimal() and 0 < int(value[:6]) < 65536 else _UNKNOWN
        for value in values
    )


def networks(attribute: Attribute, values: Iterable[str]) -> Facts:
    """Addresses and networks."""
    return tuple(Fact(attribute, value) for value in values)


def principals(values: Iterable[str], domains: Sequence[str]) -> Facts:
    """Identities as `TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`; `domains` are the mesh's own names, which mean the same."""
    found: dict[Fact, None] = {}
    for value in values:
        found |= dict.fromkeys(_principal(one) for one in _everywhere(value.removeprefix(_SPIFFE), domains))
    return tuple(found)


def _principal(value: str) -> Fact:
    fact = wild(Attribute.PRINCIPAL, value)
    if fact.compare is Compare.PRESENT:
        return Fact(Attribute.PRINCIPAL, "", Compare.PRESENT)
    if fact.compare is Compare.SUFFIX:
        return Fact(Attribute.PRINCIPAL, f"{_SPIFFE}.*{re.escape(fact.value)}", Compare.REGEX)
    return Fact(Attribute.PRINCIPAL, f"{_SPIFFE}{fact.value}", fact.compare)


def _everywhere(principal: str, domains: Sequence[str]) -> list[str]:
    """A principal under each name of the mesh's trust domain, where it is one of that."""
    domain, slash, rest = principal.partition("/")
    if not slash or (domain != _LOCAL and not any(_is(domain, one) for one in domains)):
        return [principal]
    if domain.startswith("*"):
        return [principal, *(f"{one}/{rest}" for one in domains if not _is(domain, one))]
    return [f"{one}/{rest}" for one in domains]


def _is(pattern: str, domain: str) -> bool:
    return domain.endswith(pattern[1:]) if pattern.startswith("*") else domain == pattern


def namespaces(values: Iterable[str], where: str) -> Facts:
    """Identities of namespaces; `where` is the regex of the trust domains that these are of."""
    return tuple(Fact(Attribute.PRINCIPAL, f"{_SPIFFE}{where}/ns/{_wild_name(value)}/.+", Compare.REGEX) for value in values)


def service_accounts(values: Iterable[str], namespace: str, domains: Sequence[str]) -> Facts:
    """Identities of the mesh's service accounts, as `NAMESPACE/NAME` or by name in the policy's own `namespace`."""
    found = []
    for value in values:
        space, _slash, name = value.rpartition("/")
        if not name or "/" in space or (not space and "/" in value):
            return (_UNKNOWN,)
        found += [Fact(Attribute.PRINCIPAL, f"{_SPIFFE}{domain}/ns/{space or namespace}/sa/{name}") for domain in domains]
    return tuple(found)


def trust_domains(values: Iterable[str], domains: Sequence[str]) -> Facts:
    """Identities of trust domains; one name of the mesh's own means all of them."""
    known: dict[str, None] = {}
    for value in values:
        own = value == _LOCAL or value in domains
        known |= dict.fromkeys(domains if own else (value,))
    return tuple(Fact(Attribute.PRINCIPAL, f"{_SPIFFE}{_wild_name(value)}/.+", Compare.REGEX) for value in known)


def _wild_name(value: str) -> str:
    """The regex of a name with wildcards, which never reach over a slash."""
    return "[^/]+" if value == "*" else "[^/]*".join(map(re.escape, value.split("*")))


def request_principals(values: Iterable[str]) -> Facts:
    """ISSUER/SUBJECT of tokens."""
    return tuple(wild(Attribute.REQUEST_PRINCIPAL, value) for value in values)


def claims(way: tuple[str, ...], values: Iterable[str]) -> Facts:
    """A claim of a token, or one of its entries where it is a list."""
    return tuple(wild(Attribute.CLAIM, value, way) for value in values)


_CLAIM = re.compile(r"\[([^\]]+)\]")
_OF_TOKENS = {"request.auth.audiences": ("aud",), "request.auth.presenter": ("azp",)}
_ADDRESSES = {
    "source.ip": Attribute.SOURCE_IP,
    "remote.ip": Attribute.REMOTE_IP,
    "destination.ip": Attribute.DESTINATION_IP,
}


class Meaning:
    """What the words of a policy mean in its `namespace`, under the `domains` that the mesh's trust domain is called."""

    def __init__(self, namespace: str, domains: Sequence[str], *, federated: bool = False) -> None:
        """`federated`: there are identities of other trust domains, whose namespaces are not the mesh's, however called."""
        self.namespace = namespace
        self.domains = domains
        self.where = f"(?:{'|'.join(map(re.escape, domains))})" if federated else "[^/]+"

    def condition(self, key: str, values: Sequence[str], broad: bool) -> Facts:
        """What a condition's `key` with one of these values is."""
        if key in _ADDRESSES:
            return networks(_ADDRESSES[key], values)
        if key in _OF_TOKENS:
            return claims(_OF_TOKENS[key], values)
        if key.startswith("request.auth.claims["):
            return claims(tuple(_CLAIM.findall(key)), values)
        if key.startswith("request.headers["):
            return headers(key.removeprefix("request.headers[").removesuffix("]"), values, broad)
        match key:
            case "source.namespace":
                return namespaces(values, self.where)
            case "source.principal":
                return principals(values, self.domains)
            case "source.trustDomain":
                return trust_domains(values, self.domains)
            case "source.serviceAccount":
                return service_accounts(values, self.namespace, self.domains)
            case "request.auth.principal":
                return request_principals(values)
            case "destination.port":
                return ports(values)
            case "connection.sni":
                return tuple(wild(Attribute.SNI, value) for value in values)
        return (_UNKNOWN,)
