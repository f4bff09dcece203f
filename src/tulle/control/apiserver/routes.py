"""HTTP on one side, reads and writes on the other: every request below `/api` and `/apis` is authorised and handled here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from tulle.api.object import Kind
from tulle.control.apiserver import errors, lists, patch, protobuf, reading
from tulle.control.apiserver.auth import Authorizer, User
from tulle.control.apiserver.discovery import Discovery
from tulle.control.apiserver.document import Body, from_yaml
from tulle.control.apiserver.guard import Guard
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing, target, writing
from tulle.control.apiserver.watch import Watch
from tulle.ports import Store

Raw = dict[str, Any]

_BODY_SECONDS = 30.0  # how long a client may take to send a body
_LINE_SECONDS = 60.0  # and to take a line of a watch

_JSON_PATCH, _MERGE = "application/json-patch+json", "application/merge-patch+json"
_STRATEGIC, _APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Routes:
    """The handlers for `/api`, `/apis` and what is below."""

    def __init__(self, store: Store, objects: Objects, kinds: Sequence[Kind], authorizer: Authorizer) -> None:
        self.store, self.objects, self.kinds, self.authorizer = store, objects, kinds, authorizer
        self.discovery = Discovery(kinds)
        self.watches: set[asyncio.Task[Any]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request. Raises `Denial`s, which the server's middleware turns into answers."""
        user: User | None = request.get("user")
        if user is None:
            raise errors.unauthorized()
        path = request.rel_url.raw_path.rstrip("/")
        if (found := self._discovered(request, path)) is not None:
            return found
        at = target(path, self.kinds)
        query = request.query
        watching = request.method == "GET" and query.get("watch") in ("true", "1")
        verb = "watch" if watching else _VERBS.get(request.method, "")
        if verb in ("get", "delete") and not at.name:
            verb = {"get": "list", "delete": "deletecollection"}[verb]
        guard = Guard(self.authorizer, user)
        await guard.require(verb, at)
        how = reading.form(request.headers.get("Accept", ""), query)
        match verb:
            case "watch":
                return await self._watch(request, at, how)
            case "list":
                return answer(await reading.listing(self.store, at, query, how, time.time()))
            case "get":
                return answer(reading.one(at, await reading.get(self.store, at), how, time.time()))
        return await self._write(request, verb, at, how, guard)

    def _discovered(self, request: web.Request, path: str) -> web.Response | None:
        if path not in self.discovery.documents:
            return None
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed(request.method)
        if path in ("/api", "/apis"):
            for part in request.headers.get("Accept", "").replace(" ", "").split(","):
                for version in ("v2", "v2beta1"):
                    form = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                    if part == form:
                        return answer(self.discovery.aggregate(path, version), content_type=form)
        return answer(self.discovery.documents[path])

    async def _write(self, request: web.Request, verb: str, at: Target, how: reading.Form, guard: Guard) -> web.Response:
        options = replace(writing(request.query, request.headers.get("User-Agent", "")), guard=guard)
        data = await _body(request)
        if verb in ("delete", "deletecollection"):
            return await self._delete(request, verb, at, options, data)
        if (verb == "create") is bool(at.name) or (verb == "create" and at.kind.namespaced and not at.namespace):
            raise errors.method_not_allowed(request.method)
        if verb == "create":
            value, warnings = _object(request, data, options)
            done = await self.objects.create(at, value, options)
        elif verb == "update":
            value, warnings = _object(request, data, options)
            done = await self.objects.update(at, value, options)
        elif verb == "patch":
            if request.content_type == _APPLY:
                value, warnings = self._applied(data, options)
                if "fieldManager" not in request.query:
                    raise errors.bad_request("fieldManager: found none; needed one, for this is an apply")
                done = await self.objects.apply(at, value, options)
            else:
                body = Body(data)
                warnings = body.warnings(options.validation)
                done = await self.objects.patch(at, _change(request.content_type, at.kind, body.value), options)
        else:
            raise errors.method_not_allowed(request.method)
        shown = reading.one(at, done.body, how, time.time())
        return answer(shown, 201 if done.created else 200, [*warnings, *done.warnings])

    def _applied(self, data: bytes, options: Writing) -> tuple[Any, list[str]]:
        if data.lstrip()[:1] != b"{":
            return from_yaml(data), []
        body = Body(data)
        return body.value, body.warnings(options.validation)

    async def _delete(self, request: web.Request, verb: str, at: Target, options: Writing, data: bytes) -> web.Response:
        value = _object(request, data, options)[0] if data else {}
        wanted = value.get("preconditions") if isinstance(value, dict) else None
        if isinstance(value, dict) and value.get("dryRun") == ["All"]:
            options = replace(options, dry_run=True)
        if not isinstance(value, dict) or not isinstance(wanted, dict | None):
            raise errors.bad_request("the body is no DeleteOptions")
        if verb == "delete":
            return answer(await self.objects.delete(at, value, options))
        if at.kind.namespaced and not at.namespace:
            raise errors.method_not_allowed(request.method)
        found, _ = await reading.selected(self.store, reading.selection(at, request.query))
        for item in found:
            one = Target(at.kind, at.version, item.key.namespace, item.key.name)
            with contextlib.suppress(errors.Denial):  # gone already, or (a permanent namespace) not to go
                await self.objects.delete(one, {}, options)
        return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    async def _watch(self, request: web.Request, at: Target, how: reading.Form) -> web.StreamResponse:
        query = request.query
        watch = Watch(self.store, reading.selection(at, query), query, how)
        try:
            await watch.open(time.time())
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache"})
            response.enable_chunked_encoding()
            task = asyncio.current_task()
            assert task is not None
            self.watches.add(task)
            try:
                await response.prepare(request)
                async with contextlib.aclosing(watch.lines(time.time)) as lines:
                    async for line in lines:
                        async with asyncio.timeout(_LINE_SECONDS):
                            await response.write(line)
                await response.write_eof()
            except (ConnectionError, TimeoutError):
                if request.transport is not None:  # the client is gone, or does not read
                    request.transport.abort()
            finally:
                self.watches.discard(task)
            return response
        finally:
            await watch.close()


def _change(content_type: str, kind: Kind, value: Any) -> Any:
    """The patch as a function from an object to the changed object."""

    def change(live: Raw) -> Raw:
        try:
            match content_type:
                case patch_type if patch_type == _JSON_PATCH:
                    changed = patch.json_patch(live, value)
                case patch_type if patch_type == _MERGE:
                    changed = patch.merge_patch(live, value)
                case _:
                    changed = patch.strategic_merge_patch(live, value, lists.strategic(kind))
        except patch.BadPatch as error:
            if error.rejected:
                raise errors.Denial(422, "Invalid", f"the patch does not fit the object: {error}") from error
            raise errors.bad_request(f"the patch cannot be read: {error}") from error
        return changed  # type: ignore[no-any-return]

    accepted = [_JSON_PATCH, _MERGE, *([_STRATEGIC] if kind.built_in else []), _APPLY]
    if content_type not in accepted:
        raise errors.unsupported(content_type, accepted)
    if content_type != _JSON_PATCH and not isinstance(value, dict):
        raise errors.bad_request("the patch cannot be read: needed an object")
    return change


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise errors.Denial(408, "Timeout", f"the body did not come within {_BODY_SECONDS:.0f} seconds") from error


def _object(request: web.Request, data: bytes, options: Writing) -> tuple[Any, list[str]]:
    """The body as an object, whichever of the accepted types it has, and warnings."""
    match request.content_type:
        case "application/json" | "application/octet-stream" | "":
            body = Body(data)
            return body.value, body.warnings(options.validation)
        case "application/yaml" | "text/yaml":
            return from_yaml(data), []
        case protobuf.MEDIA_TYPE:
            return protobuf.decode(data), []
    raise errors.unsupported(request.content_type, ["application/json", "application/yaml", protobuf.MEDIA_TYPE])


def answer(
    body: Mapping[str, Any], status: int = 200, warnings: Sequence[str] = (), *, content_type: str = "application/json"
) -> web.Response:
    """A JSON answer, with a `Warning:` header for each warning."""
    response = web.Response(body=json.dumps(body, separators=(",", ":")).encode(), status=status)
    response.headers["Content-Type"] = content_type
    for warning in dict.fromkeys(warnings):
        text = "".join(character if character.isprintable() else " " for character in warning)[:2000]
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response
