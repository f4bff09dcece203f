"""The client's own part: kubeconfigs, and errors that say what to do."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.apiserver import Ca, running
from tulle.client import kubeconfig
from tulle.client.api import ApiClient, _warning
from tulle.client.kubeconfig import BadKubeconfig
from tulle.kit.errors import BadData, Refused, Unavailable


def written(path: Path, server: str = "https://127.0.0.1:1") -> Path:
    ca = Ca()
    certificate, key = ca.issue("admin", ["system:masters"])
    kubeconfig.write(path, server=server, ca=ca.pem, certificate=certificate, key=key)
    return path


def test_a_kubeconfig_is_private_and_reads_back(tmp_path: Path) -> None:
    """It holds a key: others on the machine must not read it. And it must be a kubeconfig."""
    path = written(tmp_path / "deep" / "kubeconfig")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["kubeconfig"]
    document = yaml.safe_load(path.read_text())
    assert document["kind"] == "Config"
    config = kubeconfig.read(path)
    assert config.server == "https://127.0.0.1:1"
    assert config.namespace == "default"
    assert config.tls()
    assert "PRIVATE" not in repr(config)
    written(path, "https://127.0.0.1:2")
    assert kubeconfig.read(path).server == "https://127.0.0.1:2"


def test_a_kubeconfig_may_name_files(tmp_path: Path) -> None:
    """People have kubeconfigs that kubectl wrote, with certificates beside them."""
    path = written(tmp_path / "kubeconfig")
    config = kubeconfig.read(path)
    document = yaml.safe_load(path.read_text())
    for entry, field, pem in (
        (document["clusters"][0]["cluster"], "certificate-authority", config.ca),
        (document["users"][0]["user"], "client-certificate", config.certificate),
        (document["users"][0]["user"], "client-key", config.key),
    ):
        del entry[f"{field}-data"]
        entry[field] = f"{field}.pem"
        (tmp_path / f"{field}.pem").write_bytes(pem)
    path.write_text(yaml.safe_dump(document))
    assert kubeconfig.read(path) == config


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: [", "kind: Config", "current-context: x\ncontexts: [{name: y, context: {}}]", "\x00\x01"],
)
def test_files_that_are_no_kubeconfig(tmp_path: Path, text: str) -> None:
    """The file and what is missing must be named."""
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(BadKubeconfig, match="kubeconfig"):
        kubeconfig.read(path)


def test_no_kubeconfig_says_how_to_get_one(tmp_path: Path) -> None:
    """The first command of a person who has not started anything."""
    with pytest.raises(Unavailable) as absent:
        ApiClient.from_kubeconfig(tmp_path / "none")
    assert "tulle" in absent.value.hint


async def test_nobody_answers(tmp_path: Path) -> None:
    """A control plane that is not running is the commonest failure: the address, and how to start one."""
    async with ApiClient.from_kubeconfig(written(tmp_path / "k")) as api:
        with pytest.raises(Unavailable, match=r"https://127\.0\.0\.1:1") as down:
            await api.request("GET", "/version")
    assert "tulle control-plane" in down.value.hint


async def test_another_control_plane_has_the_port(tmp_path: Path) -> None:
    """After the state was deleted, the old kubeconfig meets a new authority: that must be said, not «SSL error»."""
    async with running() as served:
        path = written(tmp_path / "k", served.url)
        async with ApiClient.from_kubeconfig(path) as api:
            with pytest.raises(Refused, match="does not trust"):
                await api.request("GET", "/version")


async def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    """A hanging control plane must not hang the command."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with ApiClient.from_kubeconfig(written(tmp_path / "k", f"https://127.0.0.1:{port}"), timeout=0.3) as api:
        with pytest.raises(Unavailable, match="in time"):
            await api.request("GET", "/version")
    server.close()


async def test_documents_of_no_kind(tmp_path: Path) -> None:
    """A document that names no kind is refused here already, with the decoder's sentence."""
    async with ApiClient.from_kubeconfig(written(tmp_path / "k")) as api:
        with pytest.raises(BadData, match="VirtualServise"):
            await api.apply({"apiVersion": "networking.istio.io/v1", "kind": "VirtualServise", "metadata": {"name": "x"}})


def test_warnings_are_unquoted() -> None:
    """A person reads the warning, not its header."""
    assert _warning('299 - "unknown field \\"spec.x\\""') == 'unknown field "spec.x"'
    assert _warning("odd") == "odd"


def test_importing_the_client_imports_no_kind() -> None:
    """Every command starts with this import; the schemas cost more than all the rest."""
    code = "import sys, tulle.client.api; print([m for m in sys.modules if m.startswith(('pydantic', 'tulle.api.', 'yaml'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
