"""Kubeconfigs: how people's programs (kubectl, tulle) find a control plane and prove who they are. Always 0600: a key is in."""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulle.kit.errors import TulleError, Unavailable


class BadKubeconfig(TulleError):
    """The file is no kubeconfig, or does not say what is needed."""

    code = "bad-kubeconfig"


@dataclass(frozen=True, slots=True, repr=False)
class Kubeconfig:
    """The current context of a kubeconfig: `server` (a URL), PEM bytes to trust and to show, the default `namespace`.

    Without a `certificate` there is a bearer `token`. `others` are the servers of further contexts with the same `ca` and user:
    other control planes of the same mesh, which answer the same.
    """

    server: str
    ca: bytes
    certificate: bytes
    key: bytes
    namespace: str = "default"
    token: str = ""
    others: tuple[str, ...] = ()

    def tls(self) -> ssl.SSLContext:
        """A client's TLS context: trusts only `ca`, shows `certificate`. Raises `BadKubeconfig`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=self.ca.decode())
            if self.certificate:
                _load(context, self.key + b"\n" + self.certificate)
        except (ssl.SSLError, ValueError) as error:
            raise BadKubeconfig(f"a certificate or the key in the kubeconfig cannot be read: {error}") from error
        return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """The `ssl` module reads keys from files only: one that nobody else can open, and that is gone at once."""
    descriptor, name = tempfile.mkstemp(prefix="tulle-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()


def with_token(config: Kubeconfig, token: str, name: str) -> str:
    """The text of a kubeconfig for the same control plane, with a bearer token in place of the certificate."""
    others = {str(number): url for number, url in enumerate(config.others, 2)}
    return render(server=config.server, ca=config.ca, user={"token": token}, name=name, namespace=config.namespace, others=others)


def render(
    *, server: str, ca: bytes, user: Mapping[str, str], name: str, namespace: str, others: Mapping[str, str] | None = None
) -> str:
    """A kubeconfig's text: one cluster, one user (its fields as they stand there), one context, all of one name.

    `others` (name → URL) are more control planes of the same mesh: a cluster and a context `NAME-OTHER` each.
    """
    said = json.dumps  # JSON strings are YAML strings
    credentials = "".join(f"    {field}: {said(value)}\n" for field, value in user.items())
    servers = {name: server} | {f"{name}-{other}": url for other, url in sorted((others or {}).items())}
    clusters = "".join(
        f"""- name: {said(cluster)}
  cluster:
    server: {said(url)}
    certificate-authority-data: {said(_base64(ca))}
"""
        for cluster, url in servers.items()
    )
    contexts = "".join(
        f"""- name: {said(cluster)}
  context:
    cluster: {said(cluster)}
    user: {said(name)}
    namespace: {said(namespace)}
"""
        for cluster in servers
    )
    return f"""apiVersion: v1
kind: Config
current-context: {said(name)}
clusters:
{clusters}users:
- name: {said(name)}
  user:
{credentials}contexts:
{contexts}"""


def _base64(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def write(
    path: Path,
    *,
    server: str,
    ca: bytes,
    certificate: bytes,
    key: bytes,
    name: str = "tulle",
    namespace: str = "default",
    others: Mapping[str, str] | None = None,
) -> None:
    """Write (or replace, atomically) a kubeconfig with a context `name` and everything in it. All bytes are PEM.

    `others` as in `render`.
    """
    user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
    text = render(server=server, ca=ca, user=user, name=name, namespace=namespace, others=others)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # made 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Unavailable(f"the kubeconfig {path} cannot be written: {error.strerror}") from error


def read(path: Path) -> Kubeconfig:
    """The current context of the file at `path`. Raises `Unavailable` where it is absent, `BadKubeconfig` where it is wrong."""
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise Unavailable(
            f"there is no kubeconfig at {path}",
            hint="start a control plane (`tulle demo up` or `tulle control-plane`), or name its kubeconfig with TULLE_KUBECONFIG",
        ) from error
    except OSError as error:
        raise Unavailable(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    import yaml

    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise BadKubeconfig(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise BadKubeconfig(f"{path} is no kubeconfig: found {type(document).__name__}, needed an object")
    return _current(document, path)


def _current(document: Mapping[str, Any], path: Path) -> Kubeconfig:
    context = _named(document, "contexts", "context", document.get("current-context"), path)
    cluster = _named(document, "clusters", "cluster", context.get("cluster"), path)
    user = _named(document, "users", "user", context.get("user"), path)
    server = cluster.get("server")
    if not isinstance(server, str) or not server.startswith("https://"):
        raise BadKubeconfig(f"{path}: cluster.server: found {server!r}, needed a URL that starts with https://")
    token = _token(user, path)
    shown = not token or any(f"client-certificate{form}" in user for form in ("", "-data"))
    return Kubeconfig(
        server=server.rstrip("/"),
        ca=_pem(cluster, "certificate-authority", path),
        certificate=_pem(user, "client-certificate", path) if shown else b"",
        key=_pem(user, "client-key", path) if shown else b"",
        namespace=str(context.get("namespace") or "default"),
        token=token,
        others=tuple(_others(document, context, cluster)),
    )


def _others(document: Mapping[str, Any], context: Mapping[str, Any], cluster: Mapping[str, Any]) -> Iterator[str]:
    """The servers of other contexts, where user and authority are the same."""
    for entry in document.get("contexts") or ():
        other = entry.get("context") if isinstance(entry, dict) else None
        if not isinstance(other, dict) or other == context or other.get("user") != context.get("user"):
            continue
        for found in document.get("clusters") or ():
            there = found.get("cluster") if isinstance(found, dict) and found.get("name") == other.get("cluster") else None
            if isinstance(there, dict) and there != cluster and {**there, "server": ""} == {**cluster, "server": ""}:
                server = str(there.get("server")).rstrip("/")
                if server.startswith("https://"):
                    yield server


def _token(user: Mapping[str, Any], path: Path) -> str:
    """The bearer token that stands there, or in the file that `tokenFile` names; "" where there is none."""
    if named := user.get("tokenFile"):
        file = path.parent / str(named)
        try:
            token = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadKubeconfig(f"{path}: tokenFile: {file} cannot be read") from error
    else:
        token = user.get("token") or ""
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise BadKubeconfig(f"{path}: token: needed printable ASCII")
    return token


def _named(document: Mapping[str, Any], section: str, inner: str, name: Any, path: Path) -> Mapping[str, Any]:
    for entry in document.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(inner), dict):
            found: Mapping[str, Any] = entry[inner]
            return found
    raise BadKubeconfig(f"{path}: {section}: found no {inner} named {name!r}")


def _pem(entry: Mapping[str, Any], field: str, path: Path) -> bytes:
    """What stands in `FIELD-data`, or in the file that FIELD names (relative to the kubeconfig)."""
    if data := entry.get(f"{field}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except ValueError as error:
            raise BadKubeconfig(f"{path}: {field}-data: found something that is not base64") from error
    if named := entry.get(field):
        file = path.parent / str(named)
        try:
            return file.read_bytes()
        except OSError as error:
            raise BadKubeconfig(f"{path}: {field}: {file} cannot be read: {error.strerror}") from error
    raise BadKubeconfig(f"{path}: found no {field}-data")
