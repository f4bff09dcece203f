"""What is named before anything starts."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import pytest

from tulle.app import preflight
from tulle.kit.errors import Refused, Unavailable


def test_a_port_in_use_is_named_with_its_owner() -> None:
    """A person would be told only that something failed to bind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=rf"port {port} \(ingress\) is in use by .* \(pid {os.getpid()}\)"):
            preflight.check_port("127.0.0.1", port, "ingress")
    preflight.check_port("127.0.0.1", port, "ingress")


def test_the_installed_envoy_is_accepted() -> None:
    """No tulle could start."""
    assert preflight.check_envoy().startswith("1.40.")


def _fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    binary = tmp_path / "envoy"
    binary.write_text(script)
    binary.chmod(0o755)
    monkeypatch.setattr(preflight, "envoy_path", lambda: binary)


def test_another_version_is_refused_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below glibc 2.31 pip silently takes 1.36, which does not know what we configure."""
    _fake(tmp_path, monkeypatch, "#!/bin/sh\necho 'envoy  version: abc/1.36.2/Clean/RELEASE/BoringSSL'\n")
    with pytest.raises(Unavailable, match=r"found Envoy 1\.36\.2, needed 1\.40"):
        preflight.check_envoy()


def test_a_binary_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack trace instead of a sentence."""
    _fake(tmp_path, monkeypatch, "not a program")
    with pytest.raises(Unavailable, match="does not run"):
        preflight.check_envoy()


def test_an_old_libc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's own words about GLIBC_2.31 help nobody."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.28"))
    with pytest.raises(Unavailable, match=r"glibc 2\.28"):
        preflight.check_envoy()
