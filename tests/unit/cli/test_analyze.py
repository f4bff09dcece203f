"""`tulle analyze`: over files, over the mesh, over both; and what `apply` makes of the same findings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.corpora import corpora
from tests.unit.cli.conftest import Shell
from tulle.core.analyze.codes import CODES

SERVICE = """apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
"""
# An error in line 8, a warning in line 7, an information in line 1.
ROUTE = """apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - nowhere
  http: [{route: [{destination: {host: reviewz}}]}]
"""


@pytest.fixture
def namespace(shell: Shell, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test."""
    name = f"a{abs(hash(request.node.name)) % 10**8}"
    done = shell("apply", "-f", "-", stdin=f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
    assert done.returncode == 0, done.stderr
    yield name
    for kind in ("vs", "dr", "svc", "sidecars"):
        shell("delete", kind, "--all", "-n", name)
    shell("delete", "ns", name)


def codes(text: str) -> list[str]:
    return [one["code"] for one in json.loads(text)]


# -- files alone --


def test_files_without_a_mesh(nowhere: Shell, tmp_path: Path) -> None:
    """A pipeline that has no mesh could not use it, or would not know that nothing was asked of one."""
    (tmp_path / "a.yaml").write_text(ROUTE)
    done = nowhere("analyze", str(tmp_path))
    assert done.returncode == 79
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}/a.yaml:1:1: info: VirtualService default/reviews: apiVersion: ")
    assert (
        f"{tmp_path}/a.yaml:8:34: error: VirtualService default/reviews: spec.http[0].route[0].destination.host: " in done.stdout
    )
    assert "[TUL0101]" in done.stdout
    assert "\033" not in done.stdout, "no colours in a pipe"
    assert "the files are judged alone" in done.stderr
    assert done.stderr.endswith("1 error, 1 warning, 1 info\n")
    quiet = nowhere("analyze", "--no-live", "-", stdin=SERVICE)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "nothing found\n")


def test_exit_status_and_threshold(nowhere: Shell, tmp_path: Path) -> None:
    """A pipeline would fail for what is only worth knowing, or pass what does not work."""
    warning = ROUTE.replace("reviewz", "reviews").replace("v1beta1", "v1") + "---\n" + SERVICE
    info = SERVICE.replace("name: http, ", "")
    for text, statuses in ((ROUTE, (79, 79, 79)), (warning, (0, 79, 79)), (info, (0, 0, 79)), (SERVICE, (0, 0, 0))):
        found = [
            nowhere("analyze", "--no-live", "--failure-threshold", threshold, "-", stdin=text).returncode
            for threshold in ("Error", "warning", "INFO")
        ]
        assert tuple(found) == statuses
    assert nowhere("analyze", "--no-live", "/no/such/file").returncode == 65
    broken = nowhere("analyze", "--no-live", "-", stdin=f"{ROUTE}---\nkind: [\n")
    assert broken.returncode == 65
    assert "TUL0601" in broken.stdout
    assert "TUL0101" in broken.stdout, "the documents beside it are judged"
    assert nowhere("analyze", "--no-live").returncode == 64
    assert nowhere("analyze").returncode == 1, "there is no mesh to look at"


def test_json_and_yaml_are_the_same(nowhere: Shell) -> None:
    """A program would have to guess what is where."""
    done = nowhere("analyze", "--no-live", "-o", "json", "-", stdin=ROUTE)
    rows = json.loads(done.stdout)
    assert rows == yaml.safe_load(nowhere("analyze", "--no-live", "-o", "yaml", "-", stdin=ROUTE).stdout)
    (error,) = [row for row in rows if row["code"] == "TUL0101"]
    assert error == {
        "code": "TUL0101",
        "severity": "error",
        "title": "The Service that is named does not exist",
        "group": "networking.istio.io",
        "kind": "VirtualService",
        "namespace": "default",
        "name": "reviews",
        "path": "spec.http[0].route[0].destination.host",
        "message": "no Service reviewz in namespace default",
        "hint": error["hint"],
        "file": "-",
        "line": 8,
        "column": 34,
    }
    assert nowhere("analyze", "--no-live", "-o", "json", "-", stdin=SERVICE).stdout == "[]\n"


def test_annotations_of_github(nowhere: Shell, tmp_path: Path) -> None:
    """They would not stand beside the lines, or a comma in a name would end them."""
    file = tmp_path / "a,b.yaml"
    file.write_text(ROUTE)
    done = nowhere("analyze", "--no-live", "-o", "github", str(file))
    assert done.returncode == 79
    notice, warning, error = done.stdout.splitlines()
    assert notice.startswith("::notice file=")
    assert "a%2Cb.yaml,line=7,col=5,title=TUL0102 Nobody calls" in warning
    assert warning.startswith("::warning ")
    assert error.startswith("::error ")
    assert "::VirtualService default/reviews: spec.http[0].route[0].destination.host: no Service reviewz" in error


def test_suppression(nowhere: Shell) -> None:
    """What a team has decided to live with would fail every run."""

    def left(*options: str, text: str = ROUTE) -> set[str]:
        return set(codes(nowhere("analyze", "--no-live", "-o", "json", *options, "-", stdin=text).stdout))

    everything = {"TUL0101", "TUL0102", "TUL0503"}
    assert left() == everything
    assert left("-S", "TUL0101=VirtualService default/reviews") == everything - {"TUL0101"}
    assert left("-S", "TUL0101=VirtualService */rev*") == everything - {"TUL0101"}
    assert left("-S", "TUL0101=VirtualService shop/*") == everything
    assert left("-S", "TUL05*", "-S", "TUL0102") == {"TUL0101"}
    assert left("-S", "IST0101") == {"TUL0503"}, "istioctl's codes count"
    noted = ROUTE.replace(
        "  name: reviews\n", '  name: reviews\n  annotations: {tulle.dev/analyze-suppress: "TUL0101, TUL0503"}\n'
    )
    assert left(text=noted) == {"TUL0102"}
    assert left(text=noted.replace("tulle.dev", "galley.istio.io").replace("TUL0101, TUL0503", "IST0101")) == {"TUL0503"}
    assert left(text=noted.replace("TUL0101, TUL0503", "*")) == set()
    sidecar = """apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s, annotations: {tulle.dev/analyze-suppress: TUL0501}}
"""
    assert left(text=sidecar) == set(), "what decoding says counts too"
    assert nowhere("analyze", "--no-live", "-S", "TUL9999", "-", stdin=ROUTE).returncode == 64
    assert nowhere("analyze", "--no-live", "-S", "TUL0101=", "-", stdin=ROUTE).returncode == 64


def test_folders_and_namespaces(nowhere: Shell, tmp_path: Path) -> None:
    """Files below folders would be passed over, or read where nobody asked for them."""
    (tmp_path / "a.yaml").write_text(SERVICE)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "b.yml").write_text(ROUTE)
    assert nowhere("analyze", "--no-live", str(tmp_path)).returncode == 0
    deep = nowhere("analyze", "--no-live", "-R", "-n", "shop", "-o", "json", str(tmp_path))
    assert {row["namespace"] for row in json.loads(deep.stdout)} == {"shop"}
    assert "TUL0101" in codes(deep.stdout)


def test_colours_where_they_are_wanted(nowhere: Shell) -> None:
    """`--color` in a pipe to a pager would be ignored, or NO_COLOR."""
    assert "\033[31" in nowhere("analyze", "--no-live", "--color", "-", stdin=ROUTE).stdout
    assert "\033" not in nowhere("analyze", "--no-live", "--no-color", "-", stdin=ROUTE).stdout


def test_files_alone_need_little(nowhere: Shell, tmp_path: Path) -> None:
    """One file would wait for the libraries of servers and certificates, of which it needs none."""
    import subprocess
    import sys

    file = tmp_path / "a.yaml"
    file.write_text(SERVICE)
    code = f"import sys; from tulle.cli.main import run; print(run(['analyze', '--no-live', {str(file)!r}]), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=nowhere.env, capture_output=True, text=True, check=True)
    status, *modules = done.stdout.split()
    assert status == "0"
    assert not {"aiohttp", "grpc", "cryptography", "google.protobuf", "rich", "structlog", "uvloop"} & set(modules)


def test_codes_are_listed_and_explained(nowhere: Shell) -> None:
    """A person would have a number and no way to learn what it means."""
    rows = nowhere("analyze", "--list").stdout.splitlines()
    assert [row.split()[0] for row in rows[1:]] == [code.code for code in CODES]
    for code in CODES:
        said = nowhere("analyze", "--explain", code.code).stdout
        assert said.startswith(f"{code.code} ({code.severity}): {code.title}\n")
        assert code.hint in said
    assert "TUL0203" in nowhere("analyze", "--explain", "ist0130").stdout
    unknown = nowhere("analyze", "--explain", "TUL0109x")
    assert unknown.returncode == 64
    assert "TUL0109" in unknown.stderr


def test_istios_own_samples(nowhere: Shell, tmp_path: Path) -> None:
    """People's first files would be called wrong; each of Bookinfo's has no error beside Bookinfo's services and subsets."""
    from tulle.app.bookinfo import samples_dir

    services = samples_dir() / "bookinfo" / "bookinfo.yaml"
    folder = corpora("istio/samples/bookinfo")
    rules = folder / "networking" / "destination-rule-all.yaml"
    files = sorted([*folder.glob("networking/*.yaml"), *folder.glob("gateway-api/*.yaml")])
    assert len(files) > 20
    for file in files:
        own_rules = "kind: DestinationRule" in file.read_text() and "egress" not in file.name
        beside = [str(services), str(file), *([] if own_rules else [str(rules)])]
        rows = json.loads(nowhere("analyze", "--no-live", "-o", "json", *beside).stdout)
        wrong = [row for row in rows if row["severity"] == "error"]
        if file.name == "certmanager-gateway.yaml":
            assert [row["message"] for row in wrong] == ["no Service cert-manager-resolver in namespace istio-system"]
        else:
            assert wrong == [], file.name


# -- the mesh, and files beside it --


def test_what_files_would_do_to_the_mesh(shell: Shell, namespace: str) -> None:
    """The mesh's objects would not count, or the damage that is done to them would not be told."""
    shell("apply", "-n", namespace, "-f", "-", stdin=SERVICE)
    good = ROUTE.replace("nowhere", "reviews").replace("reviewz", "reviews").replace("v1beta1", "v1")
    done = shell("analyze", "-n", namespace, "-", stdin=good)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert shell("get", "vs", "-n", namespace).stdout == "", "nothing is written"
    assert shell("analyze", "-n", namespace, "--no-live", "-", stdin=good).returncode == 79
    shell("apply", "-n", namespace, "-f", "-", stdin=good)
    other = SERVICE.replace("reviews}", "other}") + "---\n" + SERVICE.replace("name: http, port", "name: tcp, port")
    changed = shell("analyze", "-n", namespace, "-o", "json", "-", stdin=other)
    (row,) = [row for row in json.loads(changed.stdout) if row["kind"] == "VirtualService"]
    assert (row["code"], row["name"]) == ("TUL0208", "reviews")
    assert "file" not in row, "it stands in no file"


def test_the_mesh_as_it_is(shell: Shell, namespace: str) -> None:
    """Mistakes that came in by kubectl would be found by nobody."""
    raw = {"apiVersion": "networking.istio.io/v1beta1", "kind": "ProxyConfig", "metadata": {"name": "s"}, "spec": {}}
    shell("apply", "-n", namespace, "-f", "-", stdin=json.dumps(raw))
    here = shell("analyze", "-n", namespace, "-o", "json")
    assert here.returncode == 0
    assert [(row["code"], row["kind"], row["name"]) for row in json.loads(here.stdout)] == [("TUL0501", "ProxyConfig", "s")]
    assert shell("analyze", "-n", namespace, "--failure-threshold", "Warning").returncode == 79
    assert any(row["name"] == "s" for row in json.loads(shell("analyze", "-A", "-o", "json").stdout))
    assert shell("analyze", "-n", "default", "-o", "json").stdout == "[]\n"


def test_many_objects_are_judged_here(shell: Shell, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large folder would be refused, or judged in another way than a small one."""
    from tulle.cli import meaning

    shell("apply", "-n", namespace, "-f", "-", stdin=SERVICE)
    text = "---\n".join(ROUTE.replace("name: reviews", f"name: r{at}").replace("reviewz", "reviews") for at in range(3))
    asked = shell("analyze", "-n", namespace, "-o", "json", "-", stdin=text)
    monkeypatch.setattr(meaning, "MOST", 2)
    read = shell("analyze", "-n", namespace, "-o", "json", "-", stdin=text)
    assert json.loads(asked.stdout) == json.loads(read.stdout)
    assert set(codes(read.stdout)) == {"TUL0102", "TUL0503"}


def test_too_many_objects_in_one_question(shell: Shell) -> None:
    """One question could keep everybody else waiting."""
    import asyncio

    from tulle.client.api import ApiClient
    from tulle.kit.errors import TulleError

    async def ask() -> None:
        async with ApiClient.from_kubeconfig(shell.env["TULLE_STATE_DIR"] + "/kubeconfig") as api:
            await api.request("POST", "/tulle/v1/findings", body={"objects": [{}] * 1001})

    with pytest.raises(TulleError, match="found 1001 objects; needed at most 1000"):
        asyncio.run(ask())


# -- apply --


def test_apply_warns_with_codes_and_refuses_errors(shell: Shell, namespace: str) -> None:
    """A person could not look up what the warning means, or an error would be written."""
    done = shell("apply", "-n", namespace, "-f", "-", stdin=SERVICE + "---\n" + ROUTE.replace("reviewz", "reviews"))
    assert done.returncode == 0, done.stderr
    assert f"warning: -:12:5: VirtualService {namespace}/reviews: spec.hosts[0]: " in done.stderr
    assert "[TUL0102]" in done.stderr
    assert "TUL0503" not in done.stderr, "informations are for who analyses"
    refused = shell("apply", "-n", namespace, "-f", "-", stdin=ROUTE.replace("name: reviews", "name: other"))
    assert refused.returncode == 65
    assert "[TUL0101]" in refused.stderr
    assert "--explain" in refused.stderr
    assert "nothing was written" in refused.stderr


def test_apply_waits_for_the_proxies(shell: Shell, namespace: str) -> None:
    """Without proxies there is nobody to wait for; the revision is that of what was written."""
    done = shell("apply", "-n", namespace, "--wait", "--timeout", "5s", "-f", "-", stdin=SERVICE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"all 0 proxies have revision {shell.revision('svc', 'reviews', '-n', namespace)}\n"
    assert shell("apply", "--wait", "--dry-run=server", "-f", "-", stdin=SERVICE).returncode == 64


def test_a_server_dry_run_into_a_namespace_of_the_same_files(shell: Shell) -> None:
    """The server would say that the namespace is missing, which it is only now."""
    made = "apiVersion: v1\nkind: Namespace\nmetadata: {name: not-yet}\n---\n" + SERVICE.replace(
        "name: reviews}", "name: reviews, namespace: not-yet}"
    )
    done = shell("apply", "--dry-run=server", "-f", "-", stdin=made)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "namespace/not-yet created (server dry run)",
        "service/reviews created (not tried: namespace not-yet is made in the same run)",
    ]
    assert shell("get", "ns", "not-yet").returncode == 1


def test_warnings_at_write_time_have_codes(shell: Shell, namespace: str) -> None:
    """Who uses kubectl would have a sentence without a number to look up."""
    import asyncio

    from tulle.client.api import ApiClient

    heard: list[str] = []

    async def write() -> None:
        path = shell.env["TULLE_STATE_DIR"] + "/kubeconfig"
        async with ApiClient.from_kubeconfig(path, warn=heard.append) as api:
            raw = yaml.safe_load(ROUTE.replace("v1beta1", "v1"))
            raw["metadata"]["namespace"] = namespace
            await api.create(raw)

    asyncio.run(write())
    assert [text.split()[0] for text in heard] == ["[TUL0102]", "[TUL0101]"]
    assert heard[1].startswith("[TUL0101] spec.http[0].route[0].destination.host: no Service reviewz in namespace ")
