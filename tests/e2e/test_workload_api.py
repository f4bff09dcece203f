"""Applications get identities from the Workload API: the clients that people use, in real workloads (renewed: test_rotation)."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_node_agent import Host
from tests.support.commands import Ran, run
from tests.support.mesh import Mesh

pytestmark = [pytest.mark.e2e, pytest.mark.netns]

CURL = "spiffe://cluster.local/ns/default/sa/curl"
ASK = "from spiffe import WorkloadApiClient as C; print(C().fetch_x509_svid().spiffe_id)"


def endpoint(mesh: Mesh) -> str:
    """Where the demo's node serves it."""
    return f"unix://{mesh.home}/run/demo/workload-api.sock"


def test_who_is_in_no_workload_gets_nothing(mesh: Mesh) -> None:
    """Broken: any process of the host could be any workload, by opening a socket or by saying so in its environment."""
    inside = mesh.inside(sys.executable, "-c", ASK)
    assert inside.out.strip() == CURL
    forged = {**mesh.env, "SPIFFE_ENDPOINT_SOCKET": endpoint(mesh), "TULLE_WORKLOAD": "default/curl"}
    outside = run([sys.executable, "-c", ASK], forged)
    assert outside.code != 0
    assert "PERMISSION_DENIED" in outside.text


def test_a_call_without_the_header_is_refused(mesh: Mesh) -> None:
    """Broken: a browser, or a server that is made to fetch URLs, could be made to ask for its host's identity."""
    code = (
        "import grpc, os\n"
        "channel = grpc.insecure_channel(os.environ['SPIFFE_ENDPOINT_SOCKET'])\n"
        "for header in ((), (('workload.spiffe.io', 'false'),)):\n"
        "    try: print(next(channel.unary_stream('/SpiffeWorkloadAPI/FetchX509SVID')(b'', metadata=header)))\n"
        "    except grpc.RpcError as error: print(error.code())\n"
        "try: channel.unary_unary('/SpiffeWorkloadAPI/FetchWITSVID')(b'', metadata=(('workload.spiffe.io', 'true'),))\n"
        "except grpc.RpcError as error: print(error.code())\n"
    )
    ran = mesh.inside(sys.executable, "-c", code)
    assert ran.out.split() == ["StatusCode.INVALID_ARGUMENT"] * 2 + ["StatusCode.UNIMPLEMENTED"]


@pytest.fixture
def host() -> Iterator[Host]:
    running = Host()
    running.home.chmod(0o755)
    try:
        yield running
    except BaseException:
        print(running.logs())
        raise
    finally:
        running.close()


def ask(host: Host, user: str, program: Path, home: str) -> Ran:
    """The identity of a process of a user, on the host, outside of every workload; `home` is where its Python has its library."""
    become = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", "--"]
    given = {
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{host.home}/run/workload-api.sock",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PYTHONHOME": home,
        "PATH": os.environ["PATH"],
    }
    return run([*become, str(program), "-c", ASK], given, timeout=60)


def test_processes_of_the_host_by_user_and_program(host: Host) -> None:
    """Broken: what runs outside of workloads has no identity, or that of another user's or another program's process."""
    become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
    python = Path(os.path.realpath(shutil.which(Mesh._python_for(become)[-1]) or ""))
    home = run([str(python), "-c", "import sys; print(sys.base_prefix)"], {}).out.strip()
    entries = host.home / "entries.yaml"
    rule = "- identity: default/cart\n  selectors: [unix:user:nobody, 'unix:path:%s']\n"
    entries.write_text("entries:\n" + rule % python)
    host.env["TULLE_ENTRIES_FILE"] = str(entries)
    host.start_control_plane()
    host.start_agent()
    first = ask(host, "nobody", python, home)
    assert first.out.strip() == "spiffe://cluster.local/ns/default/sa/cart", first.text
    assert "PERMISSION_DENIED" in ask(host, "root", python, home).text, "the right program, but another user's"
    copy = host.home / "python"
    shutil.copy(python, copy)
    assert "PERMISSION_DENIED" in ask(host, "nobody", copy, home).text, "the right user, but another program"
    entries.write_text("entries:\n" + rule % copy)
    assert ask(host, "nobody", copy, home).out.strip() == "spiffe://cluster.local/ns/default/sa/cart", "the file is read again"
    entries.write_text("entries:\n" + rule % python)
    host.env["PYTHONPATH"] = sysconfig.get_path("purelib")
    start = ["run", "--service", "cart", "--service-account", "cart"]
    for other in (["--", str(python)], ["--user", "nobody", "--", "true"]):
        refused = host.run(*start, *other, "-c", ASK)
        assert refused.returncode != 0
        assert "the node's entries give it to others" in refused.stderr, refused.stderr
    served = host.run(*start, "--user", "nobody", "--", str(python), "-c", ASK)
    assert served.stdout.strip() == "spiffe://cluster.local/ns/default/sa/cart", served.stdout + served.stderr
    entries.write_text("entries:\n" + rule % copy)
    assert ask(host, "nobody", copy, home).code == 0
    entries.write_text("entries: nonsense\n")
    assert ask(host, "nobody", copy, home).code == 0, "nonsense in it changes nothing"
