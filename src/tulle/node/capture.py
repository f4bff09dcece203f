"""Picks the strongest way to capture traffic that works here, by trying it, and says why (`network.py` has the ways)."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tulle.kit.errors import Refused, TulleError
from tulle.node.cgroup import CgroupNetwork, tried
from tulle.node.host_network import program
from tulle.node.netns import NetnsNetwork
from tulle.node.network import Network
from tulle.node.proxy import ProxyNetwork

_USER_NAMESPACES = "as root: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


async def choose(capture: str, *, instance: str, folder: Path, address: str = "") -> tuple[Network, str]:
    """The network for `auto`, `netns`, `cgroup` or `proxy`, and the reason in a sentence.

    `instance` names this agent (`TULLE_INSTANCE` of everything that it starts); `folder` (made 0700 where absent) keeps the
    records; at `address` others reach this host ("": found out). Raises `Refused` where what was asked for by name is not
    possible, with what to do.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if capture == "proxy":
        return ProxyNetwork(folder), "proxy, as asked for: applications are given http_proxy, and nothing is redirected"
    if capture == "cgroup":
        if (failure := await _cgroup_failure(address)) is not None:
            raise Refused(
                f"capture cgroup is not possible here: {failure.message}", hint=failure.hint or "use auto, netns or proxy"
            )
        return CgroupNetwork(instance, folder, address), "cgroup, as asked for: workloads share this host's network and ports"
    if capture not in ("auto", "netns"):
        raise Refused(f"capture {capture!r} is not known", hint="use auto, netns, cgroup or proxy")
    why: list[str] = []
    if os.geteuid() == 0:
        if (failure := await _failure(rootless=False)) is None:
            return NetnsNetwork(instance, folder, rootless=False), "netns: root, and this kernel allows it"
        why.append(f"root may not make network namespaces ({failure.message})")
    if (failure := await _failure(rootless=True)) is None:
        reason = why[0] if why else "not root, and this kernel allows it"
        return NetnsNetwork(instance, folder, rootless=True), f"netns in a user namespace: {reason}"
    why.append(f"this user may not make them in a user namespace ({failure.message})")
    said = "; ".join(why)
    if capture == "netns":
        raise Refused(f"capture netns is not possible here: {said}", hint=failure.hint or _advice())
    if (failure := await _cgroup_failure(address)) is None:
        return CgroupNetwork(
            instance, folder, address
        ), f"cgroup, in this host's network, since netns is not possible here: {said}"
    said = f"{said}; nor is cgroup ({failure.message})"
    return ProxyNetwork(folder), f"proxy, with http_proxy and without redirection, since netns is not possible here: {said}"


async def _failure(*, rootless: bool) -> TulleError | None:
    """Try all of it once, under a name of its own: namespaces, bridge, veth, rules, a program inside."""
    if sys.platform != "linux":
        return Refused("network namespaces are Linux's")
    try:
        for needed in ("ip", "nft", "sleep"):
            program(needed)
    except Refused as error:
        return error
    folder = Path(tempfile.mkdtemp(prefix="tulle-probe-"))
    network = NetnsNetwork(f"probe-{secrets.token_hex(4)}", folder, rootless=rootless)
    try:
        try:
            await network.create("probe/probe")
        except TulleError as error:
            return error
        except OSError as error:
            return Refused(str(error))
        return None
    finally:
        await network.teardown()
        shutil.rmtree(folder, ignore_errors=True)


async def _cgroup_failure(address: str) -> TulleError | None:
    """Capture a connection by a control group, and see it arrive."""
    if sys.platform != "linux":
        return Refused("control groups are Linux's")
    if os.geteuid() != 0:
        return Refused("it takes root", hint="run as root, or use auto")
    folder = Path(tempfile.mkdtemp(prefix="tulle-probe-"))
    try:
        for needed in ("ip", "nft"):
            program(needed)
        await tried(CgroupNetwork(f"probe-{secrets.token_hex(4)}", folder, address))
    except TulleError as error:
        return error
    except OSError as error:
        return Refused(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _advice() -> str:
    try:
        restricted = _APPARMOR.read_text().strip() == "1"
    except OSError:
        restricted = False
    if restricted:
        return "run as root, or as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return f"run as root, or {_USER_NAMESPACES}; capture proxy needs neither"
