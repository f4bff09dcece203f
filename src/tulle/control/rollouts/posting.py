"""POST to addresses that people wrote into objects: with a deadline, no redirects, and bounded answers that are never shown.

Whoever may write a Rollout makes the control plane send requests. So only whether an answer is 2xx is told, no word of it, and
link-local addresses (where clouds hand out credentials) are not connected to.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import aiohttp

SIGNATURE = "X-Tulle-Signature"
_MOST = 1 << 16  # bytes of an answer
_AT_ONCE = 64
_PAUSE = 1.0  # seconds between two attempts


class Poster:
    """`async with`, in the event loop that it is used in."""

    async def __aenter__(self) -> Poster:
        connector = aiohttp.TCPConnector(limit=_AT_ONCE, socket_factory=_socket)
        # An answer that unpacks to more than it weighs is not unpacked.
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def post(
        self,
        url: str,
        body: Mapping[str, Any],
        timeout: float,
        *,
        retries: int = 0,
        key: str = "",
        headers: Mapping[str, str] = {},
    ) -> str:
        """Why it was not taken (the answer was not 2xx); "" where it was. `timeout` (seconds) is that of one attempt.

        With `key` the body is signed: `sha256=` and the HMAC in hexadecimal digits.
        """
        data = json.dumps(body, sort_keys=True).encode()
        said = {"Content-Type": "application/json", "User-Agent": "tulle", **headers}
        if key:
            said[SIGNATURE] = "sha256=" + hmac.new(key.encode(), data, hashlib.sha256).hexdigest()
        why = await self._once(url, data, said, timeout)
        for _ in range(retries):
            if not why:
                break
            await asyncio.sleep(_PAUSE)
            why = await self._once(url, data, said, timeout)
        return why

    async def _once(self, url: str, data: bytes, headers: Mapping[str, str], timeout: float) -> str:
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.post(url, data=data, headers=headers, allow_redirects=False) as answer,
            ):
                size = 0
                async for chunk in answer.content.iter_any():
                    size += len(chunk)
                    if size > _MOST:
                        return f"it answers {answer.status} with more than {_MOST} bytes"
        except TimeoutError:
            return f"it has not answered within {timeout:g} s"
        except (aiohttp.InvalidURL, ValueError):
            return "its URL is none that can be asked"
        except aiohttp.ClientError as error:
            return f"it cannot be asked: {error or type(error).__name__}"
        except OSError as error:
            return f"it cannot be asked: {error.strerror or error}"
        if 300 <= answer.status < 400:
            return f"it redirects ({answer.status}), which is not followed"
        return "" if 200 <= answer.status < 300 else f"it answers {answer.status}"


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _name, place = address
    found = ipaddress.ip_address(str(place[0]).partition("%")[0])
    plain = getattr(found, "ipv4_mapped", None) or found
    if plain.is_link_local:
        raise OSError(0, f"{found} is a link-local address, which nothing is sent to")
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made
