"""What rules of HTTP do with a request, seen by the application that gets it and by the caller: in real traffic."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TULLE, Mesh, ended, fetch
from tests.support.waiting import until

# Tells what it was asked, and keeps a list of it.
SERVER = """
import http.server, json, os, sys
name, record = sys.argv[1], sys.argv[2]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        said = {"name": name, "path": self.path, "headers": {key.lower(): value for key, value in self.headers.items()}}
        with open(record, "a") as file: file.write(self.path + chr(10))
        body = json.dumps(said).encode()
        self.send_response(503 if self.path.startswith("/503") else 200)
        self.send_header("content-length", str(len(body))); self.send_header("x-inside", "secret"); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.do_GET()
    do_OPTIONS = do_GET
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


AUTHORIZER = Path(__file__).parents[1] / "support" / "authorizer.py"


class Echo:
    """Two services, `echo` and `shadow`, a caller of each kind, and rules for `echo`."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh, self.folder = mesh, folder
        (folder / "server.py").write_text(SERVER)
        self.children: list[subprocess.Popen[str]] = []
        for name in ("echo", "shadow"):
            program = [sys.executable, str(folder / "server.py"), name, str(folder / f"{name}.txt")]
            self.run("--service", name, "--port", "8000:http", "--", *program)
        self.run("--service", "canary", "--", "sleep", "infinity")
        for caller in ("curl", "canary"):
            for called in ("echo", "shadow"):
                self.until(lambda: self.asks(f"http://{called}:8000/", caller=caller)[0] == 200, f"{caller} reaches {called}")  # noqa: B023

    def run(self, *words: str) -> None:
        self.children.append(subprocess.Popen([*TULLE, "run", *words], env=self.mesh.env, stderr=subprocess.PIPE, text=True))

    def authorized(self) -> None:
        """There is somebody to ask: the service `gate`, over HTTP and gRPC."""
        program = [sys.executable, "-P", str(AUTHORIZER), "8000", "9000"]
        self.run("--service", "gate", "--port", "8000:http", "--port", "9000:grpc", "--", *program)

    def stop(self) -> None:
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        late = [child.args for child in self.children if not ended(child)]
        assert late == []

    @staticmethod
    def until(holds: Callable[[], bool], what: str) -> None:
        until(what, holds, 60)

    def rules(self, *http: dict[str, Any]) -> None:
        """The VirtualService for `echo`, once every proxy has it."""
        everything = {"route": [{"destination": {"host": "echo"}}]}
        spec = {"hosts": ["echo"], "http": [*http, everything]}
        one = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "echo"}, "spec": spec}
        self.apply(one)

    def apply(self, one: dict[str, Any]) -> None:
        self.mesh.kubectl("apply", "-f", "-", stdin=json.dumps(one))
        self.mesh.synced()

    def asks(self, url: str, *flags: str, caller: str = "curl") -> tuple[int, dict[str, str], str]:
        """Status, headers and body of a caller's request."""
        ran = self.mesh.inside("curl", "-si", "--max-time", "10", *flags, url, workload=caller, check=False)
        head, _gap, body = ran.out.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.split("\n") if head else [""]
        headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]) if first else 0, headers, body

    def sees(self, path: str, *flags: str, caller: str = "curl") -> dict[str, Any]:
        """What the application was asked."""
        status, _headers, body = self.asks(f"http://echo:8000{path}", *flags, caller=caller)
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def record(self, name: str) -> list[str]:
        """The paths that a service was asked for, ever."""
        return (self.folder / f"{name}.txt").read_text().split()


@pytest.fixture(scope="module")
def echo(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    folder = tmp_path_factory.mktemp("echo")
    for above in (folder, *folder.parents):
        if above.is_relative_to(tmp_path_factory.getbasetemp().parent):
            above.chmod(0o755)
    running = Echo(mesh, folder)
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def cleared(mesh: Mesh, echo: Echo) -> Iterator[None]:
    """No rule of one test is left for the next."""
    yield
    mesh.kubectl("delete", "virtualservice,httproute", "echo", "--ignore-not-found")
    mesh.synced()


def at(kind: str, value: str) -> list[dict[str, Any]]:
    return [{"uri": {kind: value}}]


def to(host: str = "echo", **more: Any) -> dict[str, Any]:
    return {"route": [{"destination": {"host": host}, **more}]}


def test_headers_are_changed_on_both_ways(echo: Echo) -> None:
    """An application would not learn what a rule tells it, or a caller see what it should not."""
    edits = {
        "request": {"set": {"x-env": "50%", "x-host": "%REQ(:authority)%"}, "add": {"x-list": "b"}, "remove": ["x-gone"]},
        "response": {"set": {"x-answer": "yes"}, "remove": ["x-inside"]},
    }
    echo.rules({"headers": edits, **to(headers={"request": {"set": {"x-share": "one"}}})})
    status, headers, body = echo.asks("http://echo:8000/", "-H", "x-list: a", "-H", "x-gone: 1")
    seen = json.loads(body)["headers"]
    assert status == 200
    assert (seen["x-env"], seen["x-host"], seen["x-share"]) == ("50%", "echo:8000", "one")
    assert seen["x-list"].replace(" ", "") in ("a,b", "b")  # http.server keeps the last of two lines
    assert "x-gone" not in seen
    assert (headers["x-answer"], "x-inside" in headers) == ("yes", False)


def test_redirects(echo: Echo) -> None:
    """A caller would be sent to a place that nobody named."""
    echo.rules(
        {"match": at("prefix", "/old"), "redirect": {"prefixRewrite": "/new", "redirectCode": 308}},
        {"match": at("exact", "/away"), "redirect": {"scheme": "https", "authority": "b.example", "uri": "/c"}},
    )
    status, headers, _body = echo.asks("http://echo:8000/old/a?b=c")
    assert (status, headers["location"]) == (308, "http://echo:8000/new/a?b=c")
    status, headers, _body = echo.asks("http://echo:8000/away")
    assert (status, headers["location"]) == (301, "https://b.example/c")


def test_rewrites(echo: Echo) -> None:
    """The application would be asked for a path or a host that it does not know."""
    echo.rules(
        {"match": at("prefix", "/v1"), "rewrite": {"uri": "/"}, **to()},
        {
            "match": at("regex", "/users/.*"),
            "rewrite": {"uriRegexRewrite": {"match": "/users/([0-9]+)", "rewrite": r"/u/\1"}},
            **to(),
        },
        {"match": at("exact", "/host"), "rewrite": {"authority": "b.example", "uri": "/root"}, **to()},
    )
    assert echo.sees("/v1/a?b=c")["path"] == "/a?b=c"
    assert echo.sees("/v1")["path"] == "/"
    assert echo.sees("/users/17/cart")["path"] == "/u/17/cart"
    seen = echo.sees("/host")
    assert (seen["path"], seen["headers"]["host"]) == ("/root", "b.example")
    assert echo.sees("/v2")["path"] == "/v2"


def test_an_answer_of_the_proxy_itself(echo: Echo) -> None:
    """A maintenance page would be an empty one, or the application be asked all the same."""
    echo.rules({"match": at("exact", "/busy"), "directResponse": {"status": 503, "body": {"string": "come back later"}}})
    status, _headers, body = echo.asks("http://echo:8000/busy")
    assert (status, body) == (503, "come back later")
    assert "/busy" not in echo.record("echo")


def test_mirrored_requests(echo: Echo) -> None:
    """The copy would not arrive, or its answer reach the caller."""
    echo.rules({"match": at("prefix", "/copied"), "mirror": {"host": "shadow"}, **to()})
    assert echo.sees("/copied/1")["name"] == "echo"
    echo.until(lambda: "/copied/1" in echo.record("shadow"), "the copy arrives")
    echo.rules({"match": at("prefix", "/copied"), "mirror": {"host": "shadow"}, "mirrorPercentage": {"value": 0}, **to()})
    assert echo.sees("/copied/2")["name"] == "echo"
    assert "/copied/2" not in echo.record("shadow")


def test_cors(echo: Echo) -> None:
    """Pages of another origin could not call, or any page could."""
    policy = {"allowOrigins": [{"exact": "https://a.example"}], "allowMethods": ["PUT"], "maxAge": "60s"}
    echo.rules({"corsPolicy": {**policy, "unmatchedPreflights": "IGNORE"}, **to()})
    ask = ("-X", "OPTIONS", "-H", "access-control-request-method: PUT")
    status, headers, _body = echo.asks("http://echo:8000/cors", *ask, "-H", "origin: https://a.example")
    assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
    assert (headers["access-control-allow-methods"], headers["access-control-max-age"]) == ("PUT", "60")
    assert "access-control-allow-origin" not in echo.asks("http://echo:8000/cors", *ask, "-H", "origin: https://b.example")[1]
    assert "/cors" not in echo.record("echo")
    assert echo.asks("http://echo:8000/", "-H", "origin: https://a.example")[1]["access-control-allow-origin"]


def test_who_calls_decides(echo: Echo) -> None:
    """A rule for one kind of caller would hold for all, for none, or not before its proxy starts again."""
    echo.rules({"match": [{"sourceLabels": {"app": "canary"}}], **to("shadow")})
    assert echo.sees("/", caller="canary")["name"] == "shadow"
    assert echo.sees("/")["name"] == "echo"
    echo.rules({"match": [{"sourceLabels": {"app": "curl"}}], **to("shadow")})
    assert echo.sees("/", caller="canary")["name"] == "echo"
    assert echo.sees("/")["name"] == "shadow"
    echo.rules()
    assert (echo.sees("/")["name"], echo.sees("/", caller="canary")["name"]) == ("echo", "echo")


def test_matches_of_all_kinds(echo: Echo) -> None:
    """Requests would go where another rule is for them."""
    matches = [
        {"uri": {"regex": "/r[0-9]+"}},
        {"uri": {"exact": "/CaSe"}, "ignoreUriCase": True},
        {"uri": {"prefix": "/q"}, "queryParams": {"v": {"exact": "2"}}},
        {"uri": {"prefix": "/h"}, "headers": {"x-user": {"prefix": "ja"}}, "withoutHeaders": {"x-off": {}}},
        {"uri": {"prefix": "/m"}, "method": {"exact": "OPTIONS"}},
    ]
    echo.rules({"match": matches, **to("shadow")})
    for path, flags, name in (
        ("/r12", (), "shadow"),
        ("/r12/x", (), "echo"),
        ("/cAsE", (), "shadow"),
        ("/q?v=2", (), "shadow"),
        ("/q?v=1", (), "echo"),
        ("/h", ("-H", "x-user: jason"), "shadow"),
        ("/h", ("-H", "x-user: jason", "-H", "x-off: 1"), "echo"),
        ("/m", ("-X", "OPTIONS"), "shadow"),
        ("/m", (), "echo"),
    ):
        assert echo.sees(path, *flags)["name"] == name, path


def test_nothing_is_repeated_that_somebody_may_have_acted_on(echo: Echo) -> None:
    """An order that an application refused with 503 would be sent to it three times."""
    status, _headers, _body = echo.asks("http://echo:8000/503/order", "-d", "one")
    assert status == 503
    assert echo.record("echo").count("/503/order") == 1


def test_an_application_that_does_not_listen_is_passed_over(echo: Echo) -> None:
    """Requests that reached a sidecar, and nothing behind it, would fail although another instance is there."""
    program = [sys.executable, str(echo.folder / "server.py"), "half", str(echo.folder / "half.txt")]
    echo.run("--service", "half", "--version", "alive", "--port", "8000:http", "--", *program)
    echo.run("--service", "half", "--version", "deaf", "--port", "8000:http", "--", "sleep", "infinity")
    echo.until(lambda: echo.asks("http://half:8000/")[0] == 200, "one instance answers")
    statuses = [echo.asks(f"http://half:8000/order/{number}", "-d", "one")[0] for number in range(12)]
    assert statuses == [200] * 12
    assert all(echo.record("half").count(f"/order/{number}") == 1 for number in range(12))


def test_filters_at_a_gateway(mesh: Mesh, echo: Echo) -> None:
    """What an HTTPRoute says would not be done to requests from outside."""
    backend = {"name": "echo", "port": 8000}
    rewrite = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}
    edit = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-env", "value": "50%"}]}}
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "b.example", "port": 443, "scheme": "https"}}
    full = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/full"}}}
    cors = {"allowOrigins": ["https://*.example"], "allowMethods": ["*"], "allowHeaders": ["*"], "allowCredentials": True}
    header = {"type": "Header", "header": {"name": "x-session"}}
    rules = [
        {"matches": [{"path": {"value": "/cors"}}], "filters": [{"type": "CORS", "cors": cors}], "backendRefs": [backend]},
        {"matches": [{"path": {"value": "/session"}}], "sessionPersistence": header, "backendRefs": [backend]},
        {"matches": [{"path": {"value": "/away"}}], "filters": [redirect]},
        {"matches": [{"path": {"value": "/in"}}], "filters": [rewrite, edit], "backendRefs": [backend]},
        {
            "matches": [{"path": {"value": "/split"}}],
            "backendRefs": [{**backend, "filters": [full]}, {"name": "shadow", "port": 8000}],
        },
    ]
    spec = {"parentRefs": [{"name": "demo"}], "hostnames": ["echo.example"], "rules": rules}
    one = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "echo"}, "spec": spec}
    echo.apply(one)
    host = {"host": "echo.example"}
    (away,) = fetch(f"{mesh.base}/away/a", headers=host)
    location = {name.lower(): value for name, value in away.headers.items()}.get("location")
    assert (away.status, location) == (302, "https://b.example/away/a")
    (seen,) = fetch(f"{mesh.base}/in/a", headers=host)
    assert (seen.json()["path"], seen.json()["headers"]["x-env"]) == ("/a", "50%")
    both = {(reply.json()["name"], reply.json()["path"]) for reply in fetch(f"{mesh.base}/split/a", 60, headers=host)}
    assert both == {("echo", "/full"), ("shadow", "/split/a")}
    asked = {"origin": "https://a.example", "access-control-request-method": "PUT", "access-control-request-headers": "x-a, x-b"}
    flags = [flag for name, value in asked.items() for flag in ("-H", f"{name}: {value}")]
    preflight = subprocess.run(
        ["curl", "-si", "-X", "OPTIONS", "-H", "host: echo.example", *flags, f"{mesh.base}/cors"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.lower()
    assert "access-control-allow-origin: https://a.example" in preflight
    assert "access-control-allow-headers: x-a, x-b" in preflight
    (begun,) = fetch(f"{mesh.base}/session", headers=host)
    assert {name.lower() for name in begun.headers} >= {"x-session"}


def test_policies_ask_somebody(mesh: Mesh, echo: Echo) -> None:
    """Broken: what a policy makes depend on somebody's word would pass without it, between workloads or from outside."""
    host, port = "gate.default.svc.cluster.local", 9000
    asked = [
        {"name": "http", "envoyExtAuthzHttp": {"service": host, "port": 8000, "headersToUpstreamOnAllow": ["x-user"]}},
        {"name": "grpc", "envoyExtAuthzGrpc": {"service": host, "port": port}},
    ]
    config = {"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}}
    security = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    inside = {"selector": {"matchLabels": {"app": "echo"}}, "action": "CUSTOM", "provider": {"name": "http"}}
    outside = {"action": "CUSTOM", "provider": {"name": "grpc"}}
    objects = [
        {**config, "spec": {"extensionProviders": asked}},
        {**security, "metadata": {"name": "ask"}, "spec": {**inside, "rules": [{"to": [{"operation": {"paths": ["/in*"]}}]}]}},
        {
            **security,
            "metadata": {"name": "ask", "namespace": "tulle-system"},
            "spec": {
                **outside,
                "selector": {"matchLabels": {"istio": "ingressgateway"}},
                "rules": [{"to": [{"operation": {"hosts": ["echo.example"], "paths": ["/out*"]}}]}],
            },
        },
    ]
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "echo"},
        "spec": {
            "parentRefs": [{"name": "demo"}],
            "hostnames": ["echo.example"],
            "rules": [{"backendRefs": [{"name": "echo", "port": 8000}]}],
        },
    }
    friend = ("-H", "authorization: Bearer friend")
    host_header = {"host": "echo.example"}
    echo.authorized()
    echo.apply(route)
    try:
        echo.until(lambda: mesh.kubectl("get", "service", "gate", check=False).code == 0, "there is somebody to ask")
        echo.apply({"apiVersion": "v1", "kind": "List", "items": objects})
        echo.until(lambda: echo.asks("http://echo:8000/in", *friend)[0] == 200, "friends pass inside")
        echo.until(
            lambda: fetch(f"{mesh.base}/out", headers={**host_header, "authorization": "Bearer friend"})[0].status == 200,
            "friends pass from outside",
        )
        assert echo.sees("/in", *friend)["headers"]["x-user"] == "kate"
        assert [echo.asks(f"http://echo:8000{path}")[0] for path in ("/", "/in", "//in", "/out")] == [200, 401, 401, 200]
        assert [fetch(f"{mesh.base}{path}", headers=host_header)[0].status for path in ("/", "/out", "/in")] == [200, 401, 401]
        workload = mesh.kubectl("get", "workloadentry", "-l", "app=echo", "-o", "jsonpath={.items[0].metadata.name}").out
        told = mesh.tulle("authz", "check", workload, "--from", "curl", "--path", "/in", check=False)
        assert (told.code, told.out.startswith("undecided: http is asked")) == (2, True), told.text
        gate = echo.children.pop()
        gate.kill()
        gate.wait(60)
        # Its program ends a moment after the command that ran it.
        echo.until(lambda: echo.asks("http://echo:8000/in", *friend)[0] == 403, "nobody answers")
    finally:
        mesh.kubectl("delete", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*objects, route]}))
        mesh.synced()


def test_another_service_is_asked_first(mesh: Mesh, echo: Echo) -> None:
    """Requests would pass that the authorizer did not allow, in the mesh or at a gateway; or it would not know what to judge."""

    def asks(protocol: str, port: int, name: str = "gate", **more: Any) -> list[dict[str, Any]]:
        said = {"protocol": protocol, "backendRef": {"name": name, "port": port}, protocol.lower(): {}, **more}
        return [{"type": "ExternalAuth", "externalAuth": said}]

    http = {"path": "/check", "allowedHeaders": ["x-team"], "allowedResponseHeaders": ["x-user", "x-told"]}
    filters = {
        "/http": asks("HTTP", 8000, http=http, forwardBody={"maxSize": 8}),
        "/all": asks("HTTP", 8000),
        "/grpc": asks("GRPC", 9000, forwardBody={"maxSize": 8}),
        "/nobody": asks("HTTP", 8000, "nobody"),
        "/open": [],
    }
    backends = [{"name": "echo", "port": 8000}]
    rules = [{"matches": [{"path": {"value": one}}], "filters": some, "backendRefs": backends} for one, some in filters.items()]
    rules.append({"matches": [{"method": "CONNECT"}], "filters": filters["/grpc"], "backendRefs": backends})
    parents = [{"name": "demo"}, {"group": "", "kind": "Service", "name": "echo"}]
    spec = {"parentRefs": parents, "hostnames": ["echo.example"], "rules": rules}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "echo"}, "spec": spec}
    friend = {"authorization": "Bearer friend", "x-team": "a", "x-else": "b"}

    def seen(path: str, *flags: str, **headers: str) -> dict[str, Any]:
        words = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
        return echo.sees(path, *words, *flags)

    echo.authorized()
    echo.apply(route)
    echo.until(lambda: echo.asks("http://echo:8000/http", "-H", "authorization: Bearer friend")[0] == 200, "friends pass")
    echo.until(lambda: echo.asks("http://echo:8000/grpc", "-H", "authorization: Bearer friend")[0] == 200, "friends pass")

    by_http = seen("/http/a?b=c", "-d", "body", **friend)["headers"]
    told = json.loads(by_http["x-told"])
    assert (told["path"], told["body"]) == ("/check/http/a?b=c", "body")
    assert {"authorization", "content-length", "host", "x-team"} <= set(told["headers"])
    assert "x-else" not in told["headers"]
    assert (by_http["x-user"], by_http.get("x-other"), by_http["content-length"]) == ("kate", None, "4")
    whole = seen("/all", **friend)["headers"]
    assert (whole["x-user"], whole["x-other"]) == ("kate", "o")
    assert "x-team" not in json.loads(whole["x-told"])["headers"]
    by_grpc = seen("/grpc/a", "-d", "body", **friend)["headers"]
    told = json.loads(by_grpc["x-told"])
    assert (told["path"], told["body"], by_grpc["x-user"]) == ("/grpc/a", "body", "kate")
    assert {"x-team", "x-else"} <= set(told["headers"])

    for path in ("/http", "/all", "/grpc"):
        assert echo.asks(f"http://echo:8000{path}")[::2] == (401, "who are you?")
        (refused,) = fetch(f"{mesh.base}{path}", headers={"host": "echo.example"})
        (passed,) = fetch(f"{mesh.base}{path}", headers={"host": "echo.example", **friend})
        assert (refused.status, passed.status, passed.json()["headers"]["x-user"]) == (401, 200, "kate")
    assert echo.asks("http://echo:8000/http", "-H", "authorization: Bearer friend", "-d", "longer than 8")[0] == 413
    assert echo.asks("http://echo:8000/nobody", "-H", "authorization: Bearer friend")[0] == 500
    assert echo.asks("http://echo:8000/open")[0] == 200
    # CONNECT: the application, which knows none, answers friends itself.
    asked = ["curl", "-s", "-p", "-w", "%{http_connect}", "-x"]
    for words, status in ((["--proxy-header", "authorization: Bearer friend"], "501"), ([], "401")):
        assert mesh.inside(*asked, "http://echo:8000", "telnet://echo:8000", *words, check=False).out == status
        outside = [*asked, mesh.base, "telnet://echo.example:80", *words]
        assert subprocess.run(outside, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout == status
    allowed = mesh.tulle("describe", "request", "GET", "http://echo:8000/grpc", "--from", "curl")
    assert "gate.default.svc.cluster.local:9000 would be asked first" in allowed.out

    gate = echo.children.pop()
    gate.send_signal(signal.SIGTERM)
    gate.wait(60)
    # 403 while nobody answers, 500 once its Service went with it.
    friendly = ("-H", "authorization: Bearer friend")
    assert {echo.asks(f"http://echo:8000{path}", *friendly)[0] for path in ("/http", "/grpc")} <= {403, 500}
    assert echo.asks("http://echo:8000/open")[0] == 200
