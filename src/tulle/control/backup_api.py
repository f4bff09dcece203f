"""`POST /tulle/v1/backup`: a backup of the running mesh, as a stream. Added to the application of `mesh_api.py`.

A POST although nothing changes: who may read everything there is to see may not thereby carry off what nobody is shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable

from aiohttp import web

from tulle.control.apiserver import errors


def add_backup(app: web.Application, pieces: Callable[[bool], AsyncGenerator[bytes, None]]) -> None:
    """The route. `pieces`: the bytes of a backup, with the certificate authority or without."""

    async def backup(request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json() if request.body_exists else {}
        except ValueError as error:
            raise errors.bad_request(f"the body is not JSON: {error}") from error
        wanted = body.get("authority", False) if isinstance(body, dict) else None
        if not isinstance(wanted, bool):
            raise errors.bad_request('needed {"authority": true} or {"authority": false}')
        async with contextlib.aclosing(pieces(wanted)) as source:
            first = await anext(source)  # what cannot be is said before anything is sent
            response = web.StreamResponse(headers={"Content-Type": "application/gzip", "Cache-Control": "no-store"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(first)
            async for piece in source:
                await response.write(piece)
            await response.write_eof()
            return response

    app.router.add_post("/backup", backup)
