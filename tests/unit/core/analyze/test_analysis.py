"""`Analysis`: kept up to date at the cost of what changed, and asked what if without a trace."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import GATEWAY, NOW, RULE, VIRTUAL_SERVICE, pair, secret
from tests.unit.core.compile.mesh import bookinfo, changes, key_of, obj, read, service
from tulle.api.object import Object
from tulle.core.analyze.analysis import analyze
from tulle.core.analyze.inputs import Scope
from tulle.core.pipeline import Pipeline
from tulle.kit.problem import Problem

TO = "[{route: [{destination: {host: %s}}]}]"
TWO = (VIRTUAL_SERVICE % ("a", TO % "reviews")) + "---" + (VIRTUAL_SERVICE % ("b", TO % "ratings"))


def found(pipeline: Pipeline) -> list[Problem]:
    standing = pipeline.analysis.found()
    return [one for row in sorted(standing) for one in standing[row]]


def rows(objects: list[Object]) -> dict[tuple[str, tuple[str, str]], Object]:
    return {(resource, (namespace, name)): one for one in objects for resource, namespace, name in [key_of(one)]}


@pytest.fixture
def pipeline() -> Pipeline:
    """Bookinfo, two VirtualServices of one host, and a Gateway that one of them has not."""
    made = Pipeline()
    made.commit(changes([*bookinfo(), *read(TWO), *read(GATEWAY % ("gw", "*"))]))
    made.analysis.at(Scope(live=True))
    return made


def test_the_same_as_all_at_once(pipeline: Pipeline) -> None:
    """A mesh that came bit by bit would be judged in another way than its files."""
    objects = {key_of(one): one for one in [*bookinfo(), *read(TWO), *read(GATEWAY % ("gw", "*"))]}
    assert found(pipeline) == analyze(objects.values(), Scope(live=True))
    more = [*read(RULE % ("r", "subsets: [{name: v9, labels: {version: v9}}]")), service("ratings", ports=({"port": 1},))]
    pipeline.commit(changes(more))
    objects |= {key_of(one): one for one in more}
    assert found(pipeline) == analyze(objects.values(), Scope(live=True))
    gone = ("virtualservices.networking.istio.io", "default", "a")
    pipeline.commit({gone: None})
    del objects[gone]
    assert found(pipeline) == analyze(objects.values(), Scope(live=True))


def test_only_what_changed_is_judged_again(pipeline: Pipeline) -> None:
    """Ten thousand objects would be judged for each that is written."""
    found(pipeline)
    pipeline.flow.computed.clear()
    pipeline.commit(changes(read(VIRTUAL_SERVICE % ("b", TO % "details"))))
    found(pipeline)
    assert pipeline.flow.computed["object_findings"] <= 3, pipeline.flow.computed
    assert found(pipeline) == found(pipeline)


def test_what_if_leaves_no_trace(pipeline: Pipeline) -> None:
    """A question would change what the mesh does, or what the next one hears."""
    before, size = found(pipeline), pipeline.flow.size
    wished = [*read(VIRTUAL_SERVICE % ("c", TO % "reviewz")), service("reviews", ports=({"port": 9080, "name": "tcp"},))]
    said = pipeline.analysis.trial(rows(wished))
    assert {(str(one.ref), one.reason) for one in said} >= {
        ("VirtualService default/c", "HostNotFound"),
        ("VirtualService default/a", "NoHttpPort"),
    }
    assert pipeline.commit({}).changed == {}
    assert found(pipeline) == before
    pipeline.commit({})
    assert pipeline.flow.size == size
    assert pipeline.analysis.trial(rows(wished)) == said


def test_a_certificate_that_is_applied_may_have_begun_just_now(pipeline: Pipeline) -> None:
    """A renewed certificate would be refused until the hour is over: time goes in steps, and this one began within one."""
    pipeline.analysis.at(Scope(NOW + 1800, live=True))
    assert pipeline.analysis.trial(rows(read(secret(*pair(begins=1500 / 86400))))) == []
    (later,) = pipeline.analysis.trial(rows(read(secret(*pair(begins=2400 / 86400)))))
    assert later.reason == "CertificateNotValid"


def test_what_stands_is_only_told_where_it_is_new(pipeline: Pipeline) -> None:
    """Who applies a file would hear of all that is wrong in the mesh."""
    assert [one.reason for one in found(pipeline)] == ["Conflict"]
    assert pipeline.analysis.trial(rows(read(RULE % ("r", "trafficPolicy: {loadBalancer: {simple: RANDOM}}")))) == []


def test_an_object_that_is_applied_again_is_as_old_as_it_was() -> None:
    """The oldest of two would be told that it is the younger, whenever its file is applied."""
    pipeline = Pipeline()
    first, second = read(TWO.replace("name: b", "name: b, creationTimestamp: '2026-01-02T00:00:00Z'"))
    first = obj(
        {
            **first.model_dump(by_alias=True, exclude_unset=True),
            "metadata": {"name": "a", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        }
    )
    pipeline.commit(changes([*bookinfo(), first, second]))
    pipeline.analysis.at(Scope(live=True))
    assert [str(one.ref) for one in found(pipeline)] == ["VirtualService default/b"]
    again = read(VIRTUAL_SERVICE % ("a", TO % "details"))
    assert pipeline.analysis.trial(rows(again)) == []
    assert list(pipeline.analysis.alone(*next(iter(rows(again).items()))[0], again[0])) == []


def test_in_slices(pipeline: Pipeline) -> None:
    """A large mesh would keep everybody waiting while it is judged."""
    steps = 0
    while pipeline.analysis.settle(3):
        steps += 1
    assert steps >= 5
    pipeline.flow.computed.clear()
    assert [one.reason for one in found(pipeline)] == ["Conflict"]
    assert pipeline.flow.computed["object_findings"] == 0


def test_time_counts_in_hours(pipeline: Pipeline) -> None:
    """Every question would judge everything anew."""
    found(pipeline)
    pipeline.flow.computed.clear()
    pipeline.analysis.at(Scope(3601.0, live=True))
    revision = pipeline.flow.revision
    pipeline.analysis.at(Scope(3700.0, live=True))
    assert pipeline.flow.revision == revision
    found(pipeline)
    assert pipeline.flow.computed["object_findings"] == 0, "nobody here depends on the time"
