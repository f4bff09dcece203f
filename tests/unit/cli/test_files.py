"""`-f`: everything in the files is read, and every mistake has its file and line, before anything is asked of a server."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tulle.cli.apply import in_writing_order
from tulle.cli.files import errors, read
from tulle.cli.kinds import kinds, targets
from tulle.kit.errors import TulleError

RULE = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews%s}
spec: {host: reviews}
"""


def test_all_mistakes_of_all_files_at_once(tmp_path: Path) -> None:
    """A person would mend one mistake a run."""
    (tmp_path / "a.yaml").write_text(RULE % "" + "---\nkind: [\n")
    (tmp_path / "b.yaml").write_text((RULE % "").replace("host:", "hst:"))
    (tmp_path / "notes.txt").write_text("not read: [")
    given, problems = read([str(tmp_path)], "default")
    assert [item.name for item in given] == ["reviews"]
    places = [(Path(it.location.file).name, it.location.line) for it in problems if it.location]
    assert ("b.yaml", 4) in places
    assert {name for name, _ in places} == {"a.yaml", "b.yaml"}


def test_one_object_in_two_files(tmp_path: Path) -> None:
    """The later would silently win."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(RULE % "")
    _, problems = read([str(tmp_path)], "default")
    (problem,) = errors(problems)
    assert "DestinationRule default/reviews" in str(problem)
    assert "a.yaml:3" in problem.message
    assert problem.location is not None
    assert problem.location.file.endswith("b.yaml")


def test_same_name_in_two_namespaces_is_two_objects(tmp_path: Path) -> None:
    """Namespaces would not keep apart what they are there to keep apart."""
    file = tmp_path / "a.yaml"
    file.write_text(RULE % "" + "---\n" + (RULE % "").replace("{name: reviews}", "{name: reviews, namespace: shop}"))
    given, problems = read([str(file)], "default")
    assert not problems
    assert [item.namespace for item in given] == ["default", "shop"]


def test_namespace_of_the_flag(tmp_path: Path) -> None:
    """`-n shop` would write into another namespace than the person said, or overrule the file in silence."""
    file = tmp_path / "a.yaml"
    file.write_text(RULE % "" + "---\n" + (RULE % "2").replace("{name", "{namespace: other, name"))
    given, problems = read([str(file)], "shop", insist=True)
    assert given[0].namespace == "shop"
    assert given[0].raw["metadata"]["namespace"] == "shop"
    (problem,) = problems
    assert problem.path == "metadata.namespace"
    assert '"other"' in problem.message
    assert '"shop"' in problem.message


def test_what_the_server_wrote_is_not_sent_back(tmp_path: Path) -> None:
    """`tulle get -o yaml > f; tulle apply -f f` would be refused for managedFields."""
    file = tmp_path / "a.yaml"
    file.write_text((RULE % "").replace("{name: reviews}", "{name: reviews, managedFields: [{manager: x}]}"))
    given, _ = read([str(file)], "default")
    assert "managedFields" not in given[0].raw["metadata"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file would look like an empty one."""
    with pytest.raises(TulleError, match="No such file"):
        read([str(tmp_path / "absent.yaml")], "default")
    with pytest.raises(TulleError, match="found no file"):
        read([str(tmp_path)], "default")


def test_order_of_writing(tmp_path: Path) -> None:
    """A route would be written before the namespace, service and rule that it needs."""
    file = tmp_path / "all.yaml"
    heads = [
        ("networking.istio.io/v1", "VirtualService", "spec: {hosts: [x], http: [{route: [{destination: {host: x}}]}]}"),
        ("networking.istio.io/v1", "DestinationRule", "spec: {host: x}"),
        ("v1", "Service", "spec: {ports: [{port: 80}]}"),
        ("security.istio.io/v1", "PeerAuthentication", "spec: {}"),
        ("v1", "Namespace", ""),
    ]
    file.write_text("---\n".join(f"apiVersion: {v}\nkind: {k}\nmetadata: {{name: x}}\n{s}\n" for v, k, s in heads))
    given, problems = read([str(file)], "default")
    assert not errors(problems), problems
    assert [item.kind.kind for item in in_writing_order(given)] == [
        "Namespace",
        "Service",
        "DestinationRule",
        "PeerAuthentication",
        "VirtualService",
    ]


@pytest.mark.parametrize(
    ("word", "resources"),
    [
        ("vs", ["virtualservices.networking.istio.io"]),
        ("VirtualService", ["virtualservices.networking.istio.io"]),
        ("virtualservices.v1.networking.istio.io", ["virtualservices.networking.istio.io"]),
        ("gateway", ["gateways.gateway.networking.k8s.io"]),
        ("gateways.networking.istio.io", ["gateways.networking.istio.io"]),
        ("svc,ns", ["services", "namespaces"]),
    ],
)
def test_kinds_as_people_type_them(word: str, resources: list[str]) -> None:
    """kubectl's habits would not work."""
    assert [kind.resource for kind in kinds(word)] == resources


def test_kind_and_name() -> None:
    """`vs/reviews`, `vs reviews ratings` and `vs` name what they name in kubectl."""
    assert [(kind.kind, name) for kind, name in targets(["vs/reviews", "dr/x"])] == [
        ("VirtualService", "reviews"),
        ("DestinationRule", "x"),
    ]
    assert [name for _, name in targets(["vs", "reviews", "ratings"])] == ["reviews", "ratings"]
    assert [name for _, name in targets(["vs"])] == [""]
    for wrong in (["vs/reviews", "dr"], ["svc,vs", "x"], ["virtualservic"]):
        with pytest.raises(click.UsageError):
            targets(wrong)
