"""HTTP on one side, reads and writes on the other: every request below `/api` and `/apis` is authorised and handled here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from tulle.api.object import Kind
from tulle.api.registry import REVIEWS
from tulle.control.apiserver import errors, lists, negotiation, patch, protobuf, reading, reviews
from tulle.control.apiserver.connections import read_body
from tulle.control.apiserver.deletion import Deletion, deletion
from tulle.control.apiserver.discovery import Discovery
from tulle.control.apiserver.document import Body, from_yaml, shown
from tulle.control.apiserver.guard import GUARD, Guard
from tulle.control.apiserver.negotiation import Form, answer
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.reviews import Answer, Reviews
from tulle.control.apiserver.selectors import name_in
from tulle.control.apiserver.shared_watch import Watches
from tulle.control.apiserver.target import Target, Writing, flag, target, writing
from tulle.control.apiserver.watch import Watch
from tulle.ports import Cause, Store

Raw = dict[str, Any]

_JSON_PATCH, _MERGE = "application/json-patch+json", "application/merge-patch+json"
_STRATEGIC, _APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Routes:
    """The handlers for `/api`, `/apis` and what is below."""

    def __init__(self, store: Store, objects: Objects, kinds: Sequence[Kind], questions: Reviews) -> None:
        self.store, self.objects, self.kinds, self.questions = store, objects, kinds, questions
        self.discovery = Discovery((*kinds, *REVIEWS))
        self.shared = Watches(store)
        self.watches: set[asyncio.Task[Any]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request. Raises `Denial`s, which the server's middleware turns into answers."""
        guard = request[GUARD]  # the gate lets nobody else in
        path = request.rel_url.raw_path.rstrip("/")
        if path in self.discovery.documents:
            return self.discovery.serve(request, path)
        if (question := self.questions.find(path)) is not None:
            return await self._review(request, guard, *question)
        at = target(path, self.kinds)
        allowed = _methods(at)
        if request.method not in allowed:
            raise errors.method_not_allowed(request.method, allowed)
        query = request.query
        watching = request.method == "GET" and flag(query, "watch")
        verb = "watch" if watching else _VERBS[request.method]
        if verb in ("get", "delete") and not at.name:
            verb = {"get": "list", "delete": "deletecollection"}[verb]
        one = name_in(query.get("fieldSelector", "")) if verb in ("list", "watch", "deletecollection") else ""
        await guard.require(verb, at, one)
        headers = request.headers
        how = negotiation.form(
            headers.get("Accept", ""),
            query,
            agent=headers.get("User-Agent", ""),
            encoding=headers.get("Accept-Encoding", ""),
        )
        match verb:
            case "watch":
                return await self._watch(request, at, how)
            case "list":
                return answer(await reading.listing(self.store, at, query, how, time.time()), how=how)
            case "get":
                return answer(reading.one(at, await reading.get(self.store, at, query), how, time.time()), how=how)
        return await self._write(request, verb, at, how, guard)

    async def _review(self, request: web.Request, guard: Guard, at: Target, kind: Kind, answers: Answer) -> web.Response:
        if request.method != "POST":
            raise errors.method_not_allowed(request.method, ("POST",))
        await guard.require("create", at)
        options = writing(request.query, request.headers.get("User-Agent", ""), "POST")
        body, warnings = _object(request, await read_body(request), at, replace(options, validation="Ignore"))
        review = reviews.read(kind, body)
        how = negotiation.form(request.headers.get("Accept", ""), request.query)
        status = {} if at.subresource and options.dry_run else await answers(guard, at, review)
        return answer(reviews.answered(kind, at, body, status), 201, warnings, how=how)

    async def _write(self, request: web.Request, verb: str, at: Target, how: Form, guard: Guard) -> web.Response:
        applies = request.method == "PATCH" and request.content_type == _APPLY
        cause = Cause(guard.user.author, request.remote or "", time.time(), "apply" if applies else verb)
        agent = request.headers.get("User-Agent", "")
        options = writing(request.query, agent, request.method, applies=applies, guard=guard, cause=cause)
        data = await read_body(request)
        if verb in ("delete", "deletecollection"):
            return await self._delete(request, verb, at, how, options, data)
        if verb == "create":
            value, warnings = _object(request, data, at, options)
            done = await self.objects.create(at, value, options)
        elif verb == "update":
            value, warnings = _object(request, data, at, options)
            done = await self.objects.update(at, value, options)
        elif applies:
            value, warnings = self._applied(data, at, options)
            done = await self.objects.apply(at, value, options)
        else:
            _patchable(request.content_type, at.kind)
            body = Body(data)
            warnings = body.warnings(at, options.validation)
            done = await self.objects.patch(at, _change(request.content_type, at.kind, body.value), options)
        body_shown = reading.one(at, done.body, how, time.time())
        return answer(body_shown, 201 if done.created else 200, [*warnings, *done.warnings], how=how)

    def _applied(self, data: bytes, at: Target, options: Writing) -> tuple[Any, list[str]]:
        if data.lstrip()[:1] != b"{":
            return from_yaml(data, at), []
        body = Body(data)
        return body.value, body.warnings(at, options.validation)

    async def _delete(
        self, request: web.Request, verb: str, at: Target, how: Form, options: Writing, data: bytes
    ) -> web.Response:
        value = _object(request, data, at, replace(options, validation="Ignore"))[0] if data else None
        asked, dry_run = deletion(value, request.query)
        options = replace(options, dry_run=options.dry_run or dry_run)
        if verb == "delete":
            done = await self.objects.delete(at, asked, options)
            return answer(done.body, 202 if asked.waits and not done.gone else 200, how=how)
        items = []
        found, revision = await reading.selected(self.store, reading.selection(at, request.query))
        for item in found:
            one = replace(at, namespace=item.key.namespace, name=item.key.name)
            with contextlib.suppress(errors.Denial):  # gone already, or (a permanent namespace) not to go
                await self.objects.delete(one, Deletion(asked.policy, item.body["metadata"].get("uid")), options)
                items.append(shown(at, item.body, item.revision))
        metadata = {"resourceVersion": str(revision)}
        return answer(
            {"kind": f"{at.kind.kind}List", "apiVersion": at.api_version, "metadata": metadata, "items": items}, how=how
        )

    async def _watch(self, request: web.Request, at: Target, how: Form) -> web.StreamResponse:
        query = request.query
        watch = Watch(self.shared, reading.selection(at, query), query, how)
        await watch.open(time.time())
        response = web.StreamResponse(headers={"Content-Type": negotiation.JSON, "Cache-Control": "no-cache"})
        response.enable_chunked_encoding()
        task = asyncio.current_task()
        assert task is not None
        self.watches.add(task)
        try:
            await response.prepare(request)
            await watch.run(response.write, time.time)
            await response.write_eof()
        except ConnectionError:
            if request.transport is not None:  # the client is gone, or was cut for it does not read
                request.transport.abort()
        finally:
            self.watches.discard(task)
        return response


def _methods(at: Target) -> Sequence[str]:
    """What may be done at a path."""
    if at.subresource:
        return ("GET", "HEAD", "PUT", "PATCH")
    if at.name:
        return ("GET", "HEAD", "PUT", "PATCH", "DELETE")
    return ("GET", "HEAD", "POST", "DELETE") if at.namespace or not at.kind.namespaced else ("GET", "HEAD")


def _patchable(content_type: str, kind: Kind) -> None:
    accepted = [_JSON_PATCH, _MERGE, *((_STRATEGIC,) if kind.built_in else ()), _APPLY]
    if content_type not in accepted:
        raise errors.unsupported(content_type, accepted)


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
        except patch.TooManyOperations as error:
            raise errors.Denial(413, "RequestEntityTooLarge", str(error)) from error
        except patch.BadPatch as error:
            if error.rejected:
                raise errors.Denial(422, "Invalid", f"the patch does not fit the object: {error}") from error
            raise errors.bad_request(f"the patch cannot be read: {error}") from error
        return changed  # type: ignore[no-any-return]

    if content_type != _JSON_PATCH and not isinstance(value, dict):
        raise errors.bad_request("the patch cannot be read: needed an object")
    return change


def _object(request: web.Request, data: bytes, at: Target, options: Writing) -> tuple[Any, list[str]]:
    """The body as an object, whichever of the accepted types it has, and warnings."""
    match request.content_type:
        case "application/json" | "application/octet-stream" | "":
            body = Body(data)
            return body.value, body.warnings(at, options.validation)
        case "application/yaml" | "text/yaml":
            return from_yaml(data, at), []
        case protobuf.MEDIA_TYPE:
            return protobuf.decode(data), []
    raise errors.unsupported(request.content_type, ["application/json", "application/yaml", protobuf.MEDIA_TYPE])
