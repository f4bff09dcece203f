"""`tulle node uninstall`: whatever the agent's end was, the host is afterwards as if it had never been there."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.test_node_agent import ECHO, SERVE, Host
from tests.e2e.test_outages import network
from tests.support.mesh import TULLE
from tests.support.waiting import until
from tulle.node.process import process

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the host's network")


@pytest.fixture(params=["netns", "cgroup"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    made = Host()
    made.env["TULLE_CAPTURE"] = request.param
    try:
        made.start_control_plane()
        made.start_agent()
        yield made
        print(made.logs())
    finally:
        made.close()


def uninstall(host: Host) -> subprocess.CompletedProcess[str]:
    return host.run("node", f"--instance={host.instance}", "uninstall")


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left(host: Host, killed: bool) -> None:
    """Rules that stay would go on redirecting to ports where nobody listens: a host without network for those workloads."""
    words = ["run", "--service", ECHO.service, "--version", ECHO.version, "--port=8000:http", "--exclude-outbound-ports=3306"]
    app = subprocess.Popen([*TULLE, *words, "--", *SERVE], env=host.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = host.ready()
    assert host.run("wait", "--for=synced").returncode == 0
    assert host.call() == "200"
    noted = host.run("get", "workloadentries", ECHO.name, "-o", "yaml").stdout
    assert "traffic.sidecar.istio.io/excludeOutboundPorts: '3306'" in noted
    assert network(host.instance)
    if killed:
        host.kill(host.agent)
        assert process(before.envoy_pid) is not None
    done = uninstall(host)
    assert done.returncode == 0, done.stderr
    assert (ECHO.id in done.stderr) is killed
    assert app.wait(30) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    until("nothing is left", lambda: not host.processes())
    assert not network(host.instance)
    assert not (host.home / "state" / "node").exists()
    assert not (host.home / "run" / "node").exists()
    if not killed:
        assert ECHO.name not in host.run("get", "workloadentries", "-o", "name").stdout
    again = uninstall(host)
    assert again.returncode == 0, again.stderr


def test_an_application_as_another_user(host: Host) -> None:
    """A service that systemd starts through `tulle run` must not be root because its sidecar's agent is."""
    script = "id -u; echo $USER $HOME; grep CapEff /proc/self/status"
    ran = host.run("run", "--service", "job", "--user", "nobody", "--", "sh", "-c", script)
    uid, environment, capabilities = ran.stdout.splitlines()
    assert (uid, environment) == ("65534", "nobody /nonexistent")
    assert capabilities.split() == ["CapEff:", "0" * 16]
    assert host.run("run", "--service", "job", "--user", "no-such-user", "--", "true").returncode == 64
