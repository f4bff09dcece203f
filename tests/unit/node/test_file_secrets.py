"""Certificates in files of a host: what is read, what is not, and what is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.certificates import Roots
from tulle.core.envoy.origination import NOBODY, file_secret
from tulle.node.file_secrets import _passable, read_secrets, stamps
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder whose files count whoever may read them."""
    roots = Roots()
    chain, key = roots.leaf("spiffe://a/b")
    for name, data in (("ca.pem", roots.pem), ("chain.pem", chain), ("key.pem", key), ("none.pem", b"Hello")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def test_roots_and_a_pair(folder: Path) -> None:
    """Broken: a host outside the mesh could not be called with the certificates that a person put there."""
    roots = file_secret("root", str(folder / "ca.pem"))
    pair = file_secret("cert", str(folder / "chain.pem"), str(folder / "key.pem"))
    found = read_secrets([roots, pair], folder)
    secret = secret_pb2.Secret.FromString(found[roots].value)
    assert secret.validation_context.trusted_ca.inline_bytes == (folder / "ca.pem").read_bytes()
    secret = secret_pb2.Secret.FromString(found[pair].value)
    assert secret.tls_certificate.private_key.inline_bytes == (folder / "key.pem").read_bytes()


@pytest.mark.parametrize("name", ["none.pem", "absent.pem", "", "../ca.pem", "a\0b"])
def test_what_is_no_certificate(folder: Path, name: str) -> None:
    """Broken: Envoy would be sent what it refuses, or the node stumble over a missing file."""
    assert read_secrets([file_secret("root", str(folder / name)), NOBODY, file_secret("root", name)], folder) == {}
    assert read_secrets([file_secret("cert", str(folder / "chain.pem"), str(folder / "none.pem"))], folder) == {}
    assert read_secrets([file_secret("cert", str(folder / "chain.pem"))], folder) == {}


def test_other_files_only_if_everybody_may_read_them(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Broken: who may write rules could make any host use a key that is not for them."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    name = file_secret("root", str(folder / "ca.pem"))
    assert read_secrets([name], elsewhere) == {}
    (elsewhere / "link.pem").symlink_to(folder / "ca.pem")
    assert read_secrets([file_secret("root", str(elsewhere / "link.pem"))], elsewhere) == {}
    (folder / "ca.pem").chmod(0o644)
    assert (name in read_secrets([name], elsewhere)) is _passable(folder / "ca.pem")


def test_a_changed_file_is_noticed(folder: Path) -> None:
    """Broken: a renewed certificate would not be used until somebody restarts the node."""
    name = file_secret("root", str(folder / "ca.pem"))
    before = stamps([name])
    os.utime(folder / "ca.pem", ns=(1, 1))
    assert stamps([name]) != before
    assert stamps([file_secret("root", str(folder / "absent.pem"))]) == {file_secret("root", str(folder / "absent.pem")): (0,)}
