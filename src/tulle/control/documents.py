"""JSON documents of others, read with care: as large as they may be, from where they are said to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from tulle.kit.errors import Unavailable

_LARGEST = 2**20  # bytes


async def document(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    """The JSON object at a URL; `Unavailable` where it cannot be had. The session has the time that it may take."""
    try:
        # Another place than the one that was named is none that anybody has trusted.
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise Unavailable(f"{url} answers {response.status}")
            data = await response.content.read(_LARGEST + 1)
            while len(data) <= _LARGEST and (more := await response.content.read(_LARGEST)):
                data += more
            if len(data) > _LARGEST:
                raise Unavailable(f"{url} is longer than {_LARGEST} bytes")
            found = json.loads(data)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(f"{url} cannot be read: {error or 'it does not answer in time'}") from error
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"{url} is not JSON") from error
    if not isinstance(found, dict):
        raise Unavailable(f"{url} is no JSON object")
    return found
