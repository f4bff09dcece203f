"""Who asks, as the API server's gate tells sub-applications that need no more than his identity."""

from __future__ import annotations

from aiohttp import web

# The SPIFFE ID of the client certificate that was verified; "" where there is none, or one of a person.
IDENTITY = web.RequestKey("identity", str)
