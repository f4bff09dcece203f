"""`tulle dashboard`: the page with a person's own rights, for that person's browser alone."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from tests.support.apiserver import running
from tulle.client import kubeconfig
from tulle.client.forward import Forwarder
from tulle.control.ui.page import POLICY, PREFIX, page_app
from tulle.kit.errors import Refused


async def test_only_with_the_key(tmp_path: Path) -> None:
    """Broken: any page in the same browser, and any user of the machine, would have the mesh with its administrator's rights."""
    async with (
        running(open_apps={PREFIX: page_app()}) as server,
        Forwarder(kubeconfig.read(server.write_kubeconfig(tmp_path / "kubeconfig"))) as forwarder,
    ):
        base = URL(forwarder.address).with_fragment(None).with_path("")
        key = {"Authorization": f"Bearer {forwarder.key}"}
        async with aiohttp.ClientSession() as client:

            async def status(path: str, **headers: str) -> int:
                asked = URL(f"{base}{path}", encoded=True)
                async with client.get(asked, headers=headers, allow_redirects=False) as answer:
                    return answer.status

            assert await status("/api/v1/namespaces", **key) == 200
            assert await status("/api/v1/namespaces") == 401
            assert await status("/api/v1/namespaces", Authorization="Bearer other") == 401
            assert await status("/ui/app.js") == 200
            assert await status("/") == 302
            assert await status("/identity/v1/bundle", **key) == 404
            assert await status("/api/v1/namespaces", Host="evil.example:80", **key) == 421
            for path in ("/ui/../api/v1/namespaces", "/ui/%2e%2e/api/v1/namespaces", "/ui//api/v1/namespaces", "/ui/x?y=/../"):
                assert await status(path) in (400, 401, 404), path


async def test_the_page_runs_nothing_foreign(tmp_path: Path) -> None:
    """Broken: a name of the mesh that made it into the page as HTML would run with the rights of whoever looks."""
    async with (
        running(open_apps={PREFIX: page_app()}) as server,
        Forwarder(kubeconfig.read(server.write_kubeconfig(tmp_path / "kubeconfig"))) as forwarder,
    ):
        base = URL(forwarder.address).with_fragment(None)
        async with aiohttp.ClientSession() as client, client.get(base) as answer:
            assert answer.content_type == "text/html"
            assert answer.headers["Content-Security-Policy"] == POLICY
            assert "unsafe" not in POLICY
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            tag = answer.headers["ETag"]
            async with client.get(base, headers={"If-None-Match": tag}) as again:
                assert again.status == 304


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Broken: a person would read a traceback."""
    async with running() as server:
        config = kubeconfig.read(server.write_kubeconfig(tmp_path / "kubeconfig"))
        async with Forwarder(config) as first:
            with pytest.raises(Refused, match="cannot be bound"):
                async with Forwarder(config, URL(first.address).port or 0):
                    pass


def test_the_config_is_hidden() -> None:
    """Broken: a log of the forwarder would have a person's key."""
    config = kubeconfig.Kubeconfig("https://x", b"", b"certificate", b"secret-key", token="secret-token")
    assert "secret" not in repr(config)
