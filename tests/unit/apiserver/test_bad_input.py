"""What comes from outside and makes no sense: the status and the reason that kube-apiserver gives, and a sentence."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.apiserver import Answer, Raw, Running

MAPS = "/api/v1/namespaces/default/configmaps"
ROUTES = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
SERVICES = "/api/v1/namespaces/default/services"
JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"
APPLY, STRATEGIC = "application/apply-patch+yaml", "application/strategic-merge-patch+json"
ROUTE = {"metadata": {"name": "r"}, "spec": {"hosts": ["r"], "http": [{"route": [{"destination": {"host": "r"}}]}]}}
A_HUNDRED_MB = 100 * 2**20


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.body["kind"] == "Status", answer.body
    assert (answer.body["status"], answer.body["code"]) == ("Failure", answer.status)
    assert len(answer.body["message"]) > 15
    return answer.status, answer.body["reason"]


def config(name: Any, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"metadata":{"name":"\xc3\x28"}}',
        b"\xef\xbb\xbf{}",
        '{"metadata":{"name":"a"}}'.encode("utf-16"),
        b'{"data":{"a":NaN}}',
        b'{"data":{"a":1e999}}',
        b'{"data":{"a":' + b"9" * 5000 + b"}}",
        b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data":' * 300 + b"{}" + b"}" * 300,
        b'{"metadata":' * 5_000 + b"{}" + b"}" * 5_000,
        b"[]",
        b'"text"',
        b"null",
        b"{} {}",
    ],
    ids=lambda data: repr(data[:24]),
)
async def test_bodies_that_are_no_object(http: Raw, data: bytes) -> None:
    """Nothing of it may be stored, and the server goes on."""
    assert refused(await http("POST", MAPS, data)) == (400, "BadRequest")
    await http("POST", MAPS, config("a"))
    assert refused(await http("PUT", f"{MAPS}/a", data)) == (400, "BadRequest")
    assert refused(await http("PATCH", f"{MAPS}/a", data, MERGE)) == (400, "BadRequest")
    assert (await http("GET", "/readyz")).status == 200


@pytest.mark.parametrize(
    "text",
    [
        b"a: 1\na: 2\n",
        b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 12)),
        b"a: 1\n---\nb: 2\n",
        b"{a: ",
        b"\xff",
        b"- a\n",
        b"!!python/object:os.system {}\n",
    ],
)
async def test_yaml_that_is_no_object(http: Raw, text: bytes) -> None:
    """An applied file comes as YAML: doubled keys, bombs of anchors, several documents, broken bytes."""
    assert refused(await http("PATCH", f"{MAPS}/a?fieldManager=x", text, APPLY)) == (400, "BadRequest")
    assert refused(await http("POST", MAPS, text, "application/yaml")) == (400, "BadRequest")


async def _raw(served: Running, *heads: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context: ssl.SSLContext = served.context("admin", ["system:masters"])
    url = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
    lines = (f"POST {MAPS} HTTP/1.1", f"Host: {url.netloc}", "Content-Type: application/json", *heads, "", "")
    writer.write("\r\n".join(lines).encode())
    return reader, writer


async def _answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        return await reader.readuntil(b'"code":413}')


async def test_a_body_that_says_that_it_is_too_large_is_not_read(served: Running) -> None:
    """A hundred megabytes must not even be waited for."""
    reader, writer = await _raw(served, f"Content-Length: {A_HUNDRED_MB}")
    answer = await _answer(reader)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"RequestEntityTooLarge" in answer
    writer.close()


async def test_a_body_that_turns_out_too_large_is_not_kept(served: Running) -> None:
    """One that does not say its size is refused as soon as it has passed the limit, long before its end."""
    reader, writer = await _raw(served, "Transfer-Encoding: chunked")
    chunk, sent = b" " * 65536, 0
    answer = asyncio.ensure_future(_answer(reader))
    while not answer.done() and sent < A_HUNDRED_MB:
        writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        sent += len(chunk)
        await asyncio.wait([asyncio.ensure_future(writer.drain()), answer], timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
    assert (await answer).startswith(b"HTTP/1.1 413")
    assert sent < A_HUNDRED_MB // 4
    writer.close()


async def test_unknown_content_types(http: Raw) -> None:
    """What the bytes mean is never guessed."""
    await http("POST", MAPS, config("a"))
    for method, path in (("POST", MAPS), ("PUT", f"{MAPS}/a"), ("PATCH", f"{MAPS}/a"), ("DELETE", f"{MAPS}/a")):
        answer = await http(method, path, b"{}", "text/html")
        assert refused(answer) == (415, "UnsupportedMediaType"), method
        assert "text/html" in answer.body["message"]
    await http("POST", ROUTES, ROUTE)
    strategic = await http("PATCH", f"{ROUTES}/r", {"spec": {}}, STRATEGIC)
    assert refused(strategic) == (415, "UnsupportedMediaType")
    assert MERGE in strategic.body["message"]
    assert refused(await http("POST", ROUTES, b"k8s\x00junk", "application/vnd.kubernetes.protobuf")) == (400, "BadRequest")


@pytest.mark.parametrize("name", ["Upper", "a_b", "-a", "a-", "a/b", "x" * 254, "é", "a b", "a..b", ""])
async def test_names_that_are_none(http: Raw, name: str) -> None:
    """A name ends up in paths, certificates and Envoy's configuration."""
    answer = await http("POST", MAPS, config(name))
    assert refused(answer) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == "metadata.name"
    service = {"metadata": {"name": "1st"}, "spec": {"ports": [{"port": 80}]}}
    assert refused(await http("POST", SERVICES, service)) == (422, "Invalid")
    assert refused(await http("POST", "/api/v1/namespaces", {"metadata": {"name": "a.b"}})) == (422, "Invalid")


async def test_names_that_are_no_text(http: Raw) -> None:
    """A number is not a name, nor a list one."""
    for name in (3, list[str](), dict[str, str](), True):
        assert refused(await http("POST", MAPS, config(name)))[0] in (400, 422)


async def test_what_is_not_there(http: Raw) -> None:
    """404 with the kind and the name in the details, on which clients rely."""
    for method, body, type_ in (
        ("GET", None, ""),
        ("DELETE", None, ""),
        ("PUT", config("none"), "application/json"),
        ("PATCH", {}, MERGE),
        ("PATCH", [], JSON_PATCH),
    ):
        answer = await http(method, f"{MAPS}/none", body, type_)
        assert refused(answer) == (404, "NotFound"), method
        assert answer.body["details"] == {"name": "none", "kind": "configmaps"}
    for path in (
        "/api/v1/pods",
        "/apis/none/v1/things",
        "/api/v9/configmaps",
        f"{MAPS}/a/logs",
    ):
        assert refused(await http("GET", path)) == (404, "NotFound"), path
    assert refused(await http("POST", "/api/v1/namespaces/none/configmaps", config("a"))) == (404, "NotFound")


async def test_paths_that_make_no_sense(http: Raw) -> None:
    """Whatever stands in a path, it is somebody's mistake and not the server's."""
    for name in ("%00", "%ff", "..%2f..%2fetc", "%2e%2e", "a%20b", "x" * 3000, "%F0%9F%92%A9"):
        assert (await http("GET", f"{MAPS}/{name}")).status in (400, 404), name
        assert (await http("DELETE", f"{MAPS}/{name}")).status in (400, 404), name
    answer = await http("PATCH", f"{MAPS}/Not_A_Name?fieldManager=x", {"metadata": {"name": "Not_A_Name"}}, APPLY)
    assert refused(answer) == (422, "Invalid")


async def test_an_apply_that_conflicts(http: Raw) -> None:
    """Who owns what, in the form in which kubectl and GitOps tools print it."""
    await http("PATCH", f"{MAPS}/a?fieldManager=one", config("a", x="1", y="1"), APPLY)
    answer = await http("PATCH", f"{MAPS}/a?fieldManager=two", config("a", x="2", y="2"), APPLY)
    assert refused(answer) == (409, "Conflict")
    assert answer.body["message"] == 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.x\n- .data.y'
    assert {cause["reason"] for cause in answer.body["details"]["causes"]} == {"FieldManagerConflict"}


@pytest.mark.parametrize(
    ("operations", "status"),
    [
        ([{"op": "replace", "path": "/../../../secrets", "value": 1}], 422),
        ([{"op": "remove", "path": "/data/none"}], 422),
        ([{"op": "add", "path": "/data/a/b/c", "value": 1}], 422),
        ([{"op": "test", "path": "/data/x", "value": "another"}], 422),
        ([{"op": "add", "path": "/metadata/finalizers/7", "value": "x.y/z"}], 422),
        ([{"op": "move", "from": "/data", "path": "/data/inside"}], 422),
        ([{"op": "replace", "path": "", "value": {"kind": "Secret"}}], 400),
        ([{"op": "replace", "path": "/metadata/namespace", "value": "other"}], 400),
        ([{"op": "replace", "path": "/kind", "value": "Secret"}], 400),
        ([{"op": "replace", "path": "", "value": None}], 400),
        ([{"op": "jump", "path": "/data"}], 400),
        ([{"op": "add", "path": "data", "value": 1}], 400),
        ([{"op": "add", "path": "/data/a"}], 400),
        ([{"path": "/data"}], 400),
        ([3], 400),
        ({"op": "add"}, 400),
    ],
)
async def test_a_json_patch_that_leaves_its_object(http: Raw, operations: Any, status: int) -> None:
    """A patch is about one object; it cannot reach another, nor make this one another, nor half succeed."""
    made = await http("POST", MAPS, config("a", x="1"))
    first: list[Any] = [{"op": "add", "path": "/data/half", "value": "done"}]
    answer = await http("PATCH", f"{MAPS}/a", first + operations if isinstance(operations, list) else operations, JSON_PATCH)
    assert refused(answer) == (status, "Invalid" if status == 422 else "BadRequest")
    assert (await http("GET", f"{MAPS}/a")).body == made.body


async def test_doubled_and_huge_things_where_they_are_allowed(http: Raw) -> None:
    """A number beyond 64 bits is read as Kubernetes reads it; a text with half a character is stored so that all can read it."""
    data = rb'{"metadata":{"name":"a"},"data":{"half":"x\ud800y"}}'
    assert (await http("POST", MAPS, data)).body["data"] == {"half": "x\ufffdy"}
    status = b'{"status":{"observedGeneration":123456789012345678901234567890}}'
    await http("POST", ROUTES, ROUTE)
    answer = await http("PATCH", f"{ROUTES}/r/status", status, MERGE)
    assert answer.status in (200, 422)
    assert (await http("GET", f"{ROUTES}/r")).status == 200


async def test_metadata_has_its_limits(http: Raw) -> None:
    """An object that is mostly metadata would be carried by every watch and list."""
    large = config("a")
    large["metadata"]["annotations"] = {"note": "x" * (256 * 1024)}
    answer = await http("POST", MAPS, large)
    assert refused(answer) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["reason"] == "FieldValueTooLong"
    for field, value in (
        ("labels", {"a b": "c"}),
        ("labels", {"a": "not valid!"}),
        ("annotations", {"a b": "c"}),
        ("finalizers", ["unqualified"]),
        ("ownerReferences", [{"apiVersion": "v1", "kind": "ConfigMap", "name": "b", "uid": ""}]),
        (
            "ownerReferences",
            [{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name, "controller": True} for name in ("b", "c")],
        ),
    ):
        bad = config("a")
        bad["metadata"][field] = value
        answer = await http("POST", MAPS, bad)
        assert refused(answer) == (422, "Invalid"), field
        assert answer.body["details"]["causes"][0]["field"].startswith(f"metadata.{field}")
