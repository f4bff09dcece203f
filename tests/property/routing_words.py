"""The words of random routing objects and requests: few, so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

NAMES = ("a", "b", "c", "d", "e", "f")
HOSTS = ("one.example", "two.example", "x.one.example", "y.x.one.example", "example", "else.where", "ONE.example:8080", "a.b:80")
PATTERNS = ("one.example", "*.example", "*.one.example", "*.x.one.example", "two.example", "x.one.example")

PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/A", "/a/b/c", "/b", "/a.b", "/a-1")
SENT = (
    *(*PATHS, "/a/../b", "/a/./b", "/a//b", "/%61", "/a%2Fb", "/a/%2e%2e/b", "/..", "/a/b/..", "/%7e/{x}", "/a\\b", "/.a"),
    *("/a/b%20c", "/a;b=c"),
)
TEXTS = ("a", "ab", "b", "A", "a,b", "x-y", "1")
REGEXES = (
    *("a.*", "/a.*", "/(a|b)", "/a/[^/]+", "(?i)/A", "[[:alpha:]]+", r"\d", r"/\w+/b", "a|b", ".*", "/a(/.*)?$", "^/a"),
    *(r"/a\.b", "/[ab]{1,2}", "(?i:A)b?", r"\Q/a.b\E", "/a(?i)B|/ab", "[^a]", r"/\pL", r"[\d-]+|a", "/a/?(b|B)?"),
)
HEADERS = ("x-a", "x-b", "end-user")
PARAMETERS = ("q", "r", "a")
SERVICES, METHODS_OF = ("a.B", "a.BC", "a"), ("C", "D", "CD")  # of gRPC
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")


def some(strategy: st.SearchStrategy[Any], limit: int, least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=least, max_size=limit)


def sparse(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Some of the fields; empty ones are left out."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda one: {name: value for name, value in one.items() if value != {}})


def created() -> st.SearchStrategy[Json]:
    """The age of an object, where it has one: of two that say the same, the older counts."""
    return st.sampled_from(({}, {}, {"creationTimestamp": "2024-01-01T00:00:00Z"}, {"creationTimestamp": "2025-01-01T00:00:00Z"}))
