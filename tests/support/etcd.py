"""Real etcd servers for tests: one, or a cluster of three, with or without TLS; killed, paused and started again at will.

    cluster = EtcdCluster(folder, members=3)
    cluster.start()
    cluster.members[0].pause()

Ports are ephemeral. Nothing is synced to disk (`--unsafe-no-fsync` where the server knows it), and elections are quick.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import ipaddress
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from aetcd import rpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.mesh import free_port

HEARTBEAT, ELECTION = 50, 300  # milliseconds


def binary() -> str:
    """The server's program; skips the test where there is none."""
    found = shutil.which("etcd")
    if found is None:
        pytest.skip("etcd is not installed (Debian: etcd-server)")
    return found


@functools.cache
def _flags() -> frozenset[str]:
    shown = subprocess.run([binary(), "--help"], capture_output=True, text=True, check=False)
    return frozenset(word for word in (shown.stdout + shown.stderr).split() if word.startswith("--"))


class Member:
    """One server. `client` is where it answers."""

    def __init__(self, name: str, folder: Path, tls: TlsFolder | None) -> None:
        self.name, self.folder, self.tls = name, folder, tls
        self.client, self.peer = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def endpoint(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.client}"

    def start(self, cluster: Sequence[Member], *more: str) -> None:
        """Start it, with the data that it had if it ran before."""
        scheme = "https" if self.tls else "http"
        argv = [binary(), "--name", self.name, "--data-dir", str(self.folder / self.name)]
        argv += ["--listen-client-urls", f"{scheme}://{self.endpoint}", "--advertise-client-urls", f"{scheme}://{self.endpoint}"]
        own = f"http://127.0.0.1:{self.peer}"
        argv += ["--listen-peer-urls", own, "--initial-advertise-peer-urls", own, "--initial-cluster-state", "new"]
        argv += ["--initial-cluster", ",".join(f"{one.name}=http://127.0.0.1:{one.peer}" for one in cluster)]
        argv += ["--initial-cluster-token", "test", "--heartbeat-interval", str(HEARTBEAT), "--election-timeout", str(ELECTION)]
        argv += ["--logger", "zap", "--log-level", "warn"]
        if "--unsafe-no-fsync" in _flags():
            argv.append("--unsafe-no-fsync")
        if self.tls:
            argv += ["--cert-file", str(self.tls.server_cert), "--key-file", str(self.tls.server_key)]
            argv += ["--trusted-ca-file", str(self.tls.ca), "--client-cert-auth"]
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen([*argv, *more], stdout=log, stderr=log, start_new_session=True)
        self._paused = False

    def signal(self, number: int) -> None:
        """Send a signal to the server."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def pause(self) -> None:
        """Stop it in its tracks: its connections stay open and silent."""
        self.signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)
        self._paused = False

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """Lose all data."""
        shutil.rmtree(self.folder / self.name, ignore_errors=True)

    def status(self) -> Any:
        """What it says of itself, or None where it does not answer."""
        if self._paused or self.process is None or self.process.poll() is not None:
            return None
        with contextlib.suppress(grpc.RpcError), self.channel() as channel:
            return rpc.MaintenanceStub(channel).Status(rpc.StatusRequest(), timeout=1)
        return None

    def channel(self) -> grpc.Channel:
        """A connection of the test's own."""
        if self.tls is None:
            return grpc.insecure_channel(self.endpoint)
        files = (self.tls.ca, self.tls.client_key, self.tls.client_cert)
        return grpc.secure_channel(self.endpoint, grpc.ssl_channel_credentials(*(file.read_bytes() for file in files)))


class EtcdCluster:
    """`members` servers that know each other, in `folder`."""

    def __init__(self, folder: Path, members: int = 1, *, tls: bool = False) -> None:
        self.tls = TlsFolder(folder / "tls") if tls else None
        folder.mkdir(parents=True, exist_ok=True)
        self.members = [Member(f"m{number}", folder, self.tls) for number in range(members)]

    def start(self, *more: str) -> None:
        """Start all, with `more` flags; return when they have a leader."""
        for member in self.members:
            member.start(self.members, *more)
        self.wait()

    def url(self, prefix: str = "tulle") -> str:
        """What `--store` takes."""
        return f"{'etcds' if self.tls else 'etcd'}://{','.join(one.endpoint for one in self.members)}/{prefix}"

    def leader(self, limit: float = 20) -> Member:
        """The member that leads, once there is one."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            for member in self.members:
                status = member.status()
                if status is not None and status.leader and status.leader == status.header.member_id:
                    return member
            time.sleep(0.02)
        raise AssertionError(f"no leader within {limit:g} s")

    def wait(self, limit: float = 20) -> None:
        """Return when every member that runs knows a leader."""
        deadline = time.monotonic() + limit
        while not all((status := one.status()) is not None and status.leader for one in self.members):
            assert time.monotonic() < deadline, "etcd does not come up"
            time.sleep(0.02)

    def compact(self, revision: int = 0) -> None:
        """Forget all before a revision (0: the newest), unless that was done before."""
        with self.leader().channel() as channel:
            stub = rpc.KVStub(channel)
            revision = revision or stub.Range(rpc.RangeRequest(key=b"x"), timeout=5).header.revision
            with contextlib.suppress(grpc.RpcError):
                stub.Compact(rpc.CompactionRequest(revision=revision), timeout=5)

    def stop(self) -> None:
        """End all."""
        for member in self.members:
            member.kill()


class TlsFolder:
    """A CA, a certificate for the members on 127.0.0.1 and one for a client, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.server_cert, self.server_key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        self.client_cert, self.client_key = folder / "client.pem", folder / "client.key"
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd test")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        root = _builder(name, name, key.public_key()).add_extension(basic, critical=True).sign(key, hashes.SHA256())
        self.ca.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        for cert, private, usage in (
            (self.server_cert, self.server_key, ExtendedKeyUsageOID.SERVER_AUTH),
            (self.client_cert, self.client_key, ExtendedKeyUsageOID.CLIENT_AUTH),
        ):
            own = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cert.stem)])
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            # etcd's own gateway calls it with the server's certificate, so that one is for both.
            usages = x509.ExtendedKeyUsage([usage, ExtendedKeyUsageOID.CLIENT_AUTH])
            leaf = _builder(subject, name, own.public_key()).add_extension(names, critical=False)
            signed = leaf.add_extension(usages, critical=False).sign(key, hashes.SHA256())
            cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
            encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            private.write_bytes(own.private_bytes(encoding, kind, serialization.NoEncryption()))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
    return builder.not_valid_after(now + datetime.timedelta(hours=2))
