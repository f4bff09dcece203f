"""Reads over HTTP: how fresh, in which pages, in which form; what Kubernetes' clients rely on in answers and refusals."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.support.apiserver import Answer, Raw, Running, running
from tulle.control.store.memory import MemoryStore

MAPS = "/api/v1/namespaces/default/configmaps"


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": data}


async def filled(http: Raw, count: int = 5) -> list[str]:
    names = [f"c{number}" for number in range(count)]
    for name in names:
        assert (await http("POST", MAPS, config(name))).status == 201
    return names


def names(answer: Answer) -> list[str]:
    return [item["metadata"]["name"] for item in answer.body["items"]]


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.body["kind"] == "Status"
    assert answer.body["status"] == "Failure"
    assert answer.body["code"] == answer.status
    assert len(answer.body["message"]) > 10
    return answer.status, answer.body["reason"]


async def test_pages_show_one_revision(http: Raw) -> None:
    """An object made or deleted between two pages must not be missed, shown twice, or shown half."""
    await filled(http)
    first = await http("GET", f"{MAPS}?limit=2")
    metadata = first.body["metadata"]
    assert (names(first), metadata["remainingItemCount"]) == (["c0", "c1"], 3)
    await http("POST", MAPS, config("c0a"))
    await http("DELETE", f"{MAPS}/c4")
    second = await http("GET", f"{MAPS}?limit=2&continue={metadata['continue']}")
    assert names(second) == ["c2", "c3"]
    assert second.body["metadata"]["resourceVersion"] == metadata["resourceVersion"]
    third = await http("GET", f"{MAPS}?limit=2&continue={second.body['metadata']['continue']}")
    assert names(third) == ["c4"]
    assert "continue" not in third.body["metadata"]
    assert names(await http("GET", MAPS)) == ["c0", "c0a", "c1", "c2", "c3"]
    some = await http("GET", f"{MAPS}?limit=1&labelSelector=app%20in%20(c1,c2)")
    assert names(some) == ["c1"]
    assert "remainingItemCount" not in some.body["metadata"]


async def test_a_page_whose_revision_is_gone_offers_the_rest() -> None:
    """A client in the middle of a long list learns that it is no longer consistent, and how to go on all the same."""
    async with running(MemoryStore(log=10)) as served, served.raw() as http:
        await filled(http)
        token = (await http("GET", f"{MAPS}?limit=2")).body["metadata"]["continue"]
        for number in range(40):
            await http("PATCH", f"{MAPS}/c0", {"data": {"n": str(number)}}, "application/merge-patch+json")
        gone = await http("GET", f"{MAPS}?limit=2&continue={token}")
        assert refused(gone) == (410, "Expired")
        rest = await http("GET", f"{MAPS}?limit=2&continue={gone.body['metadata']['continue']}")
        assert names(rest) == ["c2", "c3"]
        assert names(await http("GET", f"{MAPS}?continue={rest.body['metadata']['continue']}")) == ["c4"]
        exact = await http("GET", f"{MAPS}?resourceVersion=3&resourceVersionMatch=Exact")
        assert refused(exact) == (410, "Expired")


async def test_resource_versions(http: Raw) -> None:
    """Exact, not older than, any, and newest: a controller that gets another state than it asked for acts wrongly."""
    await filled(http, 2)
    old = (await http("GET", MAPS)).body["metadata"]["resourceVersion"]
    await http("POST", MAPS, config("new"))
    exact = await http("GET", f"{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")
    assert (names(exact), exact.body["metadata"]["resourceVersion"]) == (["c0", "c1"], old)
    assert names(await http("GET", f"{MAPS}?resourceVersion={old}&limit=5")) == ["c0", "c1"]
    for query in (f"resourceVersion={old}&resourceVersionMatch=NotOlderThan", f"resourceVersion={old}", "resourceVersion=0", ""):
        assert names(await http("GET", f"{MAPS}?{query}")) == ["c0", "c1", "new"], query


async def test_versions_of_the_future(http: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restore from a backup clients know revisions that are not there: they must learn it, not wait for ever."""
    monkeypatch.setattr("tulle.control.apiserver.reading._PATIENCE", 0.01)
    for path in (
        f"{MAPS}?resourceVersion=99999",
        f"{MAPS}?resourceVersion=99999&resourceVersionMatch=Exact",
        f"{MAPS}?watch=1&resourceVersion=99999",
        "/api/v1/namespaces/default?resourceVersion=99999",
    ):
        answer = await http("GET", path)
        assert refused(answer) == (504, "Timeout"), path
        assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
        assert answer.body["details"]["retryAfterSeconds"] == 1
        assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("resourceVersionMatch=Exact", (422, "Invalid")),
        ("resourceVersion=1&resourceVersionMatch=Some", (422, "Invalid")),
        ("resourceVersion=0&resourceVersionMatch=Exact", (422, "Invalid")),
        ("resourceVersion=abc", (400, "BadRequest")),
        ("resourceVersion=%C2%B2", (400, "BadRequest")),
        ("sendInitialEvents=true", (422, "Invalid")),
        ("watch=1&sendInitialEvents=true", (422, "Invalid")),
        ("watch=1&resourceVersionMatch=NotOlderThan", (422, "Invalid")),
        ("limit=many", (400, "BadRequest")),
        ("continue=nonsense", (400, "BadRequest")),
        ("continue=eyJ2IjoxfQ", (400, "BadRequest")),
        ("labelSelector=a%20b", (400, "BadRequest")),
        ("fieldSelector=spec.x%3D1", (400, "BadRequest")),
        ("includeObject=Nothing", (400, "BadRequest")),
    ],
)
async def test_questions_that_make_no_sense(http: Raw, query: str, expected: tuple[int, str]) -> None:
    """A question that is read as another gets the wrong objects."""
    assert refused(await http("GET", f"{MAPS}?{query}")) == expected


async def test_continue_goes_with_no_version(http: Raw) -> None:
    """Which of the two counts would be a guess."""
    await filled(http, 3)
    token = (await http("GET", f"{MAPS}?limit=1")).body["metadata"]["continue"]
    assert refused(await http("GET", f"{MAPS}?continue={token}&resourceVersion=1")) == (400, "BadRequest")
    matched = await http("GET", f"{MAPS}?continue={token}&resourceVersion=1&resourceVersionMatch=Exact")
    assert refused(matched) == (422, "Invalid")


async def test_forms(http: Raw) -> None:
    """kubectl asks for tables, garbage collectors for metadata, people for YAML; what cannot be made is 406."""
    await filled(http, 1)

    async def asked(accept: str, path: str = MAPS) -> Answer:
        return await http("GET", path, Accept=accept)

    table = await asked("application/json;as=Table;v=v1;g=meta.k8s.io")
    assert table.body["kind"] == "Table"
    assert table.body["columnDefinitions"][0]["name"] == "Name"
    assert table.body["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    only = await asked("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
    assert only.body["kind"] == "PartialObjectMetadataList"
    assert "data" not in only.body["items"][0]
    one = await asked("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", f"{MAPS}/c0")
    assert one.body["kind"] == "PartialObjectMetadata"
    text = await asked("application/yaml", f"{MAPS}/c0")
    assert text.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(text.body)["metadata"]["name"] == "c0"
    assert (await asked("application/vnd.kubernetes.protobuf, application/json;q=0.5")).body["kind"] == "ConfigMapList"
    assert (await asked("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json")).body["kind"] == "ConfigMapList"
    for accept in ("application/vnd.kubernetes.protobuf", "text/html", "application/json;as=Picture;v=v1;g=meta.k8s.io"):
        assert refused(await asked(accept)) == (406, "NotAcceptable"), accept


async def test_yaml_is_read_back_as_it_was(http: Raw) -> None:
    """A text such as `y` or `1e3` that comes back as a boolean or a number is another configuration."""
    data = {"a": "y", "b": "no", "c": "1e3", "d": "0o7", "e": "~", "f": "a: b\n- c\n", "g": "12:30", "h": " "}
    await http("POST", MAPS, config("words", **data))
    text = (await http("GET", f"{MAPS}/words", Accept="application/yaml")).body
    assert yaml.safe_load(text)["data"] == data
    assert "'y'" in text


async def test_pretty_for_people(http: Raw) -> None:
    """curl shows one line of ten thousand characters otherwise."""
    assert b"\n  " in (await http("GET", MAPS, User_Agent="curl/8.0")).data
    assert b"\n  " in (await http("GET", f"{MAPS}?pretty=true")).data
    assert b"\n" not in (await http("GET", f"{MAPS}?pretty=false", User_Agent="curl/8.0")).data


async def test_large_answers_are_compressed_where_asked(http: Raw) -> None:
    """kubectl asks for gzip; a client that does not must not get it."""
    for number in range(3):
        await http("POST", MAPS, config(f"c{number}", text="x" * 60_000))
    plain = await http("GET", MAPS, Accept_Encoding="identity")
    assert "Content-Encoding" not in plain.headers
    packed = await http("GET", MAPS, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.data) < 20_000
    assert json.loads(gzip.decompress(packed.data)) == plain.body
    assert "Content-Encoding" not in (await http("GET", f"{MAPS}/c0", Accept_Encoding="gzip")).headers


async def test_methods(http: Raw) -> None:
    """What is not served at a path is 405 and says what is; HEAD answers without a body."""
    for method, path, allowed in (
        ("POST", f"{MAPS}/a", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("PUT", MAPS, {"GET", "HEAD", "POST", "DELETE"}),
        ("DELETE", "/api/v1/configmaps", {"GET", "HEAD"}),
        ("POST", "/api/v1/configmaps", {"GET", "HEAD"}),
        ("DELETE", "/api/v1/namespaces/default/services/a/status", {"GET", "HEAD", "PUT", "PATCH"}),
        ("POST", "/apis", {"GET", "HEAD"}),
        ("OPTIONS", MAPS, {"GET", "HEAD", "POST", "DELETE"}),
    ):
        answer = await http(method, path, {})
        assert refused(answer) == (405, "MethodNotAllowed"), path
        assert set(answer.headers["Allow"].split(", ")) == allowed
    head = await http("HEAD", MAPS)
    assert (head.status, head.data) == (200, b"")


async def test_field_selectors_with_escapes(http: Raw) -> None:
    """A value may have a comma in it."""
    await filled(http, 2)
    selector = quote("metadata.name=c1,metadata.namespace==default", safe="")
    assert names(await http("GET", f"{MAPS}?fieldSelector={selector}")) == ["c1"]
    assert names(await http("GET", f"{MAPS}?fieldSelector={quote('metadata.name=c1' + chr(92) + ',c0', safe='')}")) == []


async def test_aggregated_discovery_is_kept_by_its_tag(http: Raw) -> None:
    """kubectl asks at every command whether its copy holds; without tags it fetches everything, every time."""
    for version in ("v2", "v2beta1"):
        accept = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        first = await http("GET", "/apis", Accept=accept)
        assert first.headers["Content-Type"] == accept
        assert first.body["apiVersion"] == f"apidiscovery.k8s.io/{version}"
        again = await http("GET", "/apis", Accept=accept, If_None_Match=first.headers["ETag"])
        assert (again.status, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
        assert (await http("GET", "/apis", Accept=accept, If_None_Match='"another"')).status == 200
        reordered = "application/json;as=APIGroupDiscoveryList;v=" + version + ";g=apidiscovery.k8s.io"
        assert (await http("GET", "/api", Accept=reordered)).body["kind"] == "APIGroupDiscoveryList"
    preferred = "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json"
    assert (await http("GET", "/apis", Accept=preferred)).body["kind"] == "APIGroupList"


async def test_openapi_is_kept_by_its_hash(http: Raw) -> None:
    """kubectl fetches a document once for each hash; a wrong one is led to the right."""
    index = (await http("GET", "/openapi/v3")).body["paths"]
    url = index["apis/networking.istio.io/v1"]["serverRelativeURL"]
    first = await http("GET", url)
    assert "immutable" in first.headers["Cache-Control"]
    assert first.headers["ETag"].strip('"') in url
    assert (await http("GET", url, If_None_Match=first.headers["ETag"])).status == 304
    assert (await http("GET", "/openapi/v3", If_None_Match=first.headers["ETag"])).status == 304
    moved = await http("GET", url.partition("?")[0] + "?hash=OLD")
    assert (moved.status, moved.headers["Location"]) == (301, url)
    assert (await http("GET", url.partition("?")[0])).body["openapi"].startswith("3.")


async def test_two_servers_of_one_version_say_the_same_of_their_schemas(served: Running) -> None:
    """With several control planes a client's cache must hold whichever answers."""
    async with running() as other, served.raw() as first, other.raw() as second:
        assert (await first("GET", "/openapi/v3")).body == (await second("GET", "/openapi/v3")).body
