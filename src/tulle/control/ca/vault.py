"""A `Remote` over the HTTP API of Vault's PKI engine, and of what speaks like it (OpenBao): `sign-verbatim`, or `sign` of a role.

POST https://vault:8200/v1/pki/sign-verbatim/tulle  {csr, ttl, uri_sans, alt_names, ip_sans, ...}
  ◀── {"data": {"certificate": PEM, "ca_chain": [PEM, ...], "issuing_ca": PEM}}
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tulle.kit.errors import Refused, Unavailable

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)
_LARGEST = 1 << 20  # bytes of an answer
_AT_ONCE = 32  # connections


class VaultPki:
    """`url` is the whole path that signs. `token_file` is read for each request, for an agent beside may replace the token.

    `ca_file`: whom to trust as the server; None: the machine's roots.
    """

    def __init__(self, url: str, token_file: Path, ca_file: Path | None) -> None:
        """Raises `Refused` where these cannot be right."""
        if not url.startswith("https://"):
            raise Refused(f"--ca-signer-url: found {url!r}, needed https://HOST:PORT/v1/MOUNT/sign-verbatim/ROLE")
        self._url, self._token_file = url, token_file
        try:
            self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise Refused(f"--ca-signer-ca-file {ca_file}: {error}") from error
        self._session: aiohttp.ClientSession | None = None
        self._token()

    async def sign(self, csr_pem: bytes, uri: str, names: Sequence[str], lifetime: float, *, server: bool) -> bytes:
        """As `external.Remote`."""
        addresses = [name for name in names if _is_address(name)]
        body = {
            "csr": csr_pem.decode(),
            "ttl": f"{int(lifetime)}s",
            "format": "pem",
            "uri_sans": uri,
            "alt_names": ",".join(name for name in names if name not in addresses),
            "ip_sans": ",".join(addresses),
            "key_usage": ["DigitalSignature"],
            "ext_key_usage": ["ClientAuth", "ServerAuth"] if server else ["ClientAuth"],
        }
        data = await self._post(body)
        try:
            above = data.get("ca_chain") or ([data["issuing_ca"]] if data.get("issuing_ca") else [])
            return "\n".join([data["certificate"], *above]).encode()
        except (KeyError, TypeError) as error:
            raise Refused("the signer's answer has no certificate") from error

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        token = await asyncio.to_thread(self._token)
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=_AT_ONCE)
            self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        try:
            async with self._session.post(
                self._url, json=body, headers={"X-Vault-Token": token}, allow_redirects=False
            ) as response:
                text = await response.content.read(_LARGEST)
                status = response.status
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unavailable(f"the signer at {self._url}: its certificate is not trusted: {error.certificate_error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the signer at {self._url} does not answer: {error or 'in time'}") from error
        try:
            answer = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            answer = {}
        if status >= 500 or status in (403, 429):  # 403: the token has ended; its agent brings another
            raise Unavailable(f"the signer at {self._url}: {_why(answer, status)}")
        if status != 200:
            raise Refused(f"the signer at {self._url} refuses: {_why(answer, status)}")
        data = answer.get("data")
        return data if isinstance(data, dict) else {}

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()

    def _token(self) -> str:
        try:
            return self._token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"--ca-signer-token-file {self._token_file} cannot be read") from error


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _why(answer: dict[str, Any], status: int) -> str:
    said = answer.get("errors")
    return "; ".join(map(str, said))[:500] if isinstance(said, list) and said else f"status {status}"
