"""A request as a proxy sees it once it has been read: its path in normal form, its headers by lower-case name."""

from __future__ import annotations

import re

import msgspec

from tulle.core.model.edge import Paths

_DOT = re.compile(r"\.|%2[eE]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_SLASH = re.compile(r"%2[fF]|%5[cC]")
_SLASHES = re.compile("/+")
# What a URL need not escape in a path, and so stands there unescaped in normal form.
_PLAIN = re.compile(r"[A-Za-z0-9\-_~]")
# What may not stand in a path as it is.
_ESCAPED = frozenset(' "#<>?`{}|^')


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """`path` is with its query; `headers` are in order and may repeat a name. `authority` is what the client wrote into Host."""

    authority: str
    method: str = "GET"
    path: str = "/"
    scheme: str = "http"
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> tuple[str, ...]:
        """The values of a header, also of `:method` and its like; none where it is absent."""
        pseudo = {":authority": self.authority, "host": self.authority, ":method": self.method, ":scheme": self.scheme}
        pseudo[":path"] = self.path
        if name in pseudo:
            return (pseudo[name],)
        return tuple(value.strip() for one, value in self.headers if one.lower() == name)

    @property
    def bare_path(self) -> str:
        """The path without query and fragment."""
        return re.split(r"[?#]", self.path, maxsplit=1)[0]

    def query(self, name: str) -> str | None:
        """The first value of a query parameter, as it stands there; "" without `=`, None where it is absent."""
        for part in self.path.partition("?")[2].split("&"):
            key, _equals, value = part.partition("=")
            if part and key == name:
                return value
        return None


def normalized(request: Request, paths: Paths = Paths.BASE) -> Request:
    """The request with its path in the normal form in which routes are matched, and in which it is sent on.

    Unless `paths` says otherwise: as the URL standard has it: `\\` is `/`, `.` and `..` are resolved (also `%2e`), and what needs
    no escape has none.
    """
    path, mark, query = request.path.partition("?")
    if paths is Paths.DECODE_AND_MERGE_SLASHES:
        path = _SLASH.sub("/", path)
    path = path if paths is Paths.NONE else _normal(path)
    if paths in (Paths.MERGE_SLASHES, Paths.DECODE_AND_MERGE_SLASHES):
        path = _SLASHES.sub("/", path)
    return msgspec.structs.replace(request, path=path + mark + query)


def _normal(path: str) -> str:
    out: list[str] = []
    place = 0
    while place < len(path):
        here = path[place]
        if dot := _DOT.match(path, place):
            place = dot.end()
            if not out or out[-1] != "/":
                out.append(".")
                continue
            second = _DOT.match(path, place)
            for up, end in ((False, place), *(((True, second.end()),) if second else ())):
                if end == len(path) or path[end] in "/\\":
                    place = end + 1
                    if up:
                        _back(out)
                    break
            else:
                out.append(".")
            continue
        if here == "\\":
            out.append("/")
        elif escape := _ESCAPE.match(path, place):
            plain = chr(int(escape[1], 16))
            out += plain if _PLAIN.fullmatch(plain) else escape[0]
            place += 2
        elif here in _ESCAPED or here > "~" or here < " ":
            out += "".join(f"%{byte:02X}" for byte in here.encode())
        else:
            out.append(here)
        place += 1
    return "".join(out)


def _back(out: list[str]) -> None:
    """Take the last folder away: `/a/b/` becomes `/a/`, and `/` stays."""
    if len(out) == 1:
        return
    out.pop()
    while out[-1] != "/":
        out.pop()
