"""The client of the API server, for the command line, the demo and tests: Kubernetes' REST in, dicts out.

    async with ApiClient.from_kubeconfig(path) as api:
        await api.apply(raw, field_manager="tulle")

Objects are raw JSON dicts on both sides. A kind is named by its registration (`tulle.api.registry`), which callers that only use
`request` never import. Errors are `TulleError`s: `Unavailable` where nobody answers, `Refused`, `BadData` with the server's
sentences, and those of `client/errors.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp

from tulle.client import kubeconfig
from tulle.client.errors import ApiError, from_status
from tulle.kit.errors import BadData, Refused, Unavailable
from tulle.kit.problem import Problem

if TYPE_CHECKING:
    from tulle.api.object import Kind

Raw = dict[str, Any]

_CONNECT = 5.0  # seconds to be connected: a host that is off does not answer at all
_START = "start one with `tulle demo up` or `tulle control-plane`, or name its kubeconfig with TULLE_KUBECONFIG"
_APPLY, _MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


class ApiClient:
    """A connection to one control plane, or to whichever of several answers, as one user.

    Open it with `async with`; safe for concurrent use. `namespace` is the kubeconfig's, for callers that need a default. `warn`
    is called with every `Warning:` of the server.
    """

    def __init__(
        self,
        server: str,
        tls: ssl.SSLContext,
        *,
        namespace: str = "default",
        timeout: float = 30.0,
        warn: Callable[[str], None] | None = None,
        token: str = "",
        others: Sequence[str] = (),
    ) -> None:
        """`server`: `https://host:port`; `others` answer the same. `timeout`: seconds for one answer (watches have none).
        `token`: a bearer token.
        """
        self.servers = [one.rstrip("/") for one in (server, *others)]
        self.namespace = namespace
        self._tls, self._timeout, self._warn = tls, timeout, warn
        self._headers = {"User-Agent": "tulle"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path | str, *, timeout: float = 30.0, warn: Callable[[str], None] | None = None) -> ApiClient:
        """The client for a kubeconfig's current context. Raises `Unavailable` where the file is absent."""
        config = kubeconfig.read(Path(path))
        return cls(
            config.server,
            config.tls(),
            namespace=config.namespace,
            timeout=timeout,
            warn=warn,
            token=config.token,
            others=config.others,
        )

    @property
    def server(self) -> str:
        """The one that answered last."""
        return self.servers[0]

    def move(self) -> None:
        """From now on to the next one first."""
        self.servers.append(self.servers.pop(0))

    async def __aenter__(self) -> ApiClient:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls, limit=32), headers=self._headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> Any:
        """Any path of the control plane (`/tulle/v1/status`, `/version`); the decoded JSON of the answer, or its text."""
        options: dict[str, Any] = {"timeout": aiohttp.ClientTimeout(total=timeout or self._timeout, sock_connect=_CONNECT)}
        async with _Answer(self, method, path, query, body, content_type, options) as response:
            text = await response.read()
            return _json(text) if response.content_type == "application/json" else text.decode(errors="replace")

    async def download(self, path: str, body: Any) -> AsyncGenerator[bytes, None]:
        """What a POST to a path of the control plane answers, piece by piece as it comes."""
        options: dict[str, Any] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=60.0)}
        async with _Answer(self, "POST", path, None, body, "application/json", options) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def follow(self, path: str, query: Mapping[str, str], silence: float = 60.0) -> AsyncGenerator[Raw, None]:
        """The JSON documents, one a line, of an answer that goes on; one that says nothing for `silence` seconds is over."""
        options: dict[str, Any] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=silence)}
        async with _Answer(self, "GET", path, {**query, "watch": "true"}, None, "", options) as response:
            async for one in _lines(response.content):
                yield one

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Raw:
        """One object. Raises `NotFound`."""
        found: Raw = await self.request("GET", _path(kind, namespace or self.namespace, name))
        return found

    async def list(self, kind: Kind, namespace: str | None = None, *, label_selector: str = "", field_selector: str = "") -> Raw:
        """The List (`items`, `metadata.resourceVersion`); of all namespaces where `namespace` is None."""
        found: Raw = await self.request("GET", _path(kind, namespace), query=_selectors(label_selector, field_selector))
        return found

    async def create(self, raw: Raw, *, field_manager: str = "tulle", dry_run: bool = False) -> Raw:
        """Make an object that is not there yet. Raises `AlreadyExists`."""
        kind, namespace, _ = self._named(raw)
        query = _writing(field_manager, dry_run)
        made: Raw = await self.request("POST", _path(kind, namespace, version=_version(raw)), query=query, body=raw)
        return made

    async def update(self, raw: Raw, *, field_manager: str = "tulle", dry_run: bool = False) -> Raw:
        """Replace an object; with `metadata.resourceVersion` only where it is still at that. Raises `WriteConflict`."""
        kind, namespace, name = self._named(raw)
        path = _path(kind, namespace, name, version=_version(raw))
        made: Raw = await self.request("PUT", path, query=_writing(field_manager, dry_run), body=raw)
        return made

    async def apply(
        self, raw: Raw, *, field_manager: str = "tulle", force: bool = True, dry_run: bool = False, validation: str = "Strict"
    ) -> Raw:
        """Make the object be as `raw` says, and leave alone what others set (server-side apply).

        Fields that this manager applied before and no longer names are removed. `force` takes over fields of other managers;
        without it they raise `WriteConflict`.
        """
        kind, namespace, name = self._named(raw)
        query = {**_writing(field_manager, dry_run, validation), "force": "true" if force else "false"}
        path = _path(kind, namespace, name, version=_version(raw))
        made: Raw = await self.request("PATCH", path, query=query, body=raw, content_type=_APPLY)
        return made

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        content_type: str = _MERGE,
        subresource: str = "",
        field_manager: str = "tulle",
        dry_run: bool = False,
    ) -> Raw:
        """Change parts of an object: a merge patch, or by `content_type` a JSON patch or strategic merge patch."""
        path = _path(kind, namespace or self.namespace, name, subresource)
        made: Raw = await self.request(
            "PATCH", path, query=_writing(field_manager, dry_run), body=patch, content_type=content_type
        )
        return made

    async def delete(self, kind: Kind, name: str, namespace: str | None = None, *, dry_run: bool = False) -> Raw:
        """Remove an object. Raises `NotFound`."""
        query = {"dryRun": "All"} if dry_run else {}
        gone: Raw = await self.request("DELETE", _path(kind, namespace or self.namespace, name), query=query)
        return gone

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        since: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[Raw, None]:
        """Events `{type: ADDED|MODIFIED|DELETED|BOOKMARK, object}` after the resource version `since`.

        Without `since`, what is there comes first as ADDED. Ends where the server ends it (watch again from the last resource
        version seen); raises `Expired` where that is no longer kept.
        """
        query = {**_selectors(label_selector, field_selector), "watch": "true", "allowWatchBookmarks": "true"}
        if since:
            query["resourceVersion"] = since
        options: dict[str, Any] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)}
        async with _Answer(self, "GET", _path(kind, namespace), query, None, "", options) as response:
            async for event in _lines(response.content):
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise from_status(int(status.get("code") or 500), status)
                yield event

    def _named(self, raw: Mapping[str, Any]) -> tuple[Kind, str, str]:
        """The kind, namespace and name of a document."""
        from tulle.api.decode import decode
        from tulle.api.registry import kind_for

        group = str(raw.get("apiVersion", "")).rpartition("/")[0]
        kind = kind_for(group, str(raw.get("kind", "")))
        metadata = raw.get("metadata")
        if kind is None or not isinstance(metadata, Mapping):
            _, problems = decode(dict(raw))  # says what is wrong
            raise BadData(problems or [Problem(None, "kind", "UnknownKind", "found no kind that is known")])
        return kind, str(metadata.get("namespace") or self.namespace), str(metadata.get("name") or "")


class _Answer:
    """One request's response as a context; what goes wrong on the way becomes a `TulleError`."""

    def __init__(
        self,
        client: ApiClient,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        options: Mapping[str, Any],
    ) -> None:
        self.client, self.method, self.path, self.query = client, method, path, query
        self.body, self.content_type, self.options = body, content_type, options

    async def __aenter__(self) -> aiohttp.ClientResponse:
        client = self.client
        if client._session is None:
            raise RuntimeError("the client is not open: use `async with`")
        data = None if self.body is None else json.dumps(self.body)
        headers = {"Accept": "application/json"} | ({"Content-Type": self.content_type} if data is not None else {})
        for others in reversed(range(len(client.servers))):
            self.context = client._session.request(
                self.method, client.server + self.path, params=self.query or None, data=data, headers=headers, **self.options
            )
            try:
                response = await self.context.__aenter__()
            except aiohttp.ClientConnectorCertificateError as error:
                raise self._failure(error) from error
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                # Nothing was asked yet: another one may be.
                failure = self._failure(error)
                client.move()
                if not others:
                    raise failure from error
                continue
            except Exception as error:
                raise self._failure(error) from error
            if response.status == 503:  # its store is away, or it stops
                client.move()
                if others and self.method == "GET":
                    response.close()
                    continue
            break
        try:
            for value in response.headers.getall("Warning", ()):
                if client._warn is not None:
                    client._warn(_warning(value))
            if response.status >= 400:
                raise await _refusal(response)
        except BaseException:
            response.close()
            raise
        return response

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.context.__aexit__(kind, error, trace)
        if isinstance(error, aiohttp.ClientError | asyncio.TimeoutError | OSError):
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> BaseException:
        server = self.client.server
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return Refused(
                f"the control plane at {server} shows a certificate that the kubeconfig does not trust",
                hint="its authority was made anew, or another program has the port: use the kubeconfig that it wrote last",
            )
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return Refused(f"TLS with the control plane at {server} fails: {error}")
        if isinstance(error, asyncio.TimeoutError):
            return Unavailable(f"the control plane at {server} did not answer in time", hint="look at its log")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Unavailable(f"no control plane answers at {server}", hint=_START)
        if isinstance(error, aiohttp.ClientError | OSError):
            return Unavailable(f"the connection to the control plane at {server} broke: {error}", hint="look at its log")
        return error


async def _refusal(response: aiohttp.ClientResponse) -> Exception:
    text = await response.read()
    status = _json(text) if response.content_type == "application/json" else None
    if not isinstance(status, dict):
        return ApiError(
            f"{response.method} {response.url.path}: the control plane answered {response.status}", http=response.status
        )
    return from_status(response.status, status)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ApiError("the control plane's answer is not JSON") from error


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[Raw, None]:
    """The JSON documents of a watch, one a line, of any length."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield _json(line)


def _warning(header: str) -> str:
    """The text of `299 - "text"`."""
    found = re.fullmatch(r'\s*\d+ \S+ "((?:[^"\\]|\\.)*)".*', header)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else header


def _version(raw: Mapping[str, Any]) -> str:
    return str(raw.get("apiVersion", "")).rpartition("/")[2]


def _path(kind: Kind, namespace: str | None, name: str = "", subresource: str = "", version: str = "") -> str:
    """A kind's REST path; `namespace` None for all of them."""
    version = version or kind.versions[0]
    root = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    parts = [root, *(("namespaces", quote(namespace, safe="")) if kind.namespaced and namespace else ()), kind.plural]
    parts += [quote(part, safe="") for part in (name, subresource) if part]
    return "/".join(parts)


def _selectors(label: str, field: str) -> dict[str, str]:
    return {key: value for key, value in (("labelSelector", label), ("fieldSelector", field)) if value}


def _writing(field_manager: str, dry_run: bool, validation: str = "Strict") -> dict[str, str]:
    query = {"fieldManager": field_manager, "fieldValidation": validation}
    return query | ({"dryRun": "All"} if dry_run else {})
