"""Calls are added up in a table that does not grow without bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tulle.core.model.calls import BOUNDS, quantile
from tulle.core.model.recorded import EXAMPLES, Example, Shape, failing
from tulle.core.recorded.folding import Fold, kind_of, merged, one


def example(number: int, milliseconds: float = 7.0, share: float = 1.0) -> Example:
    return Example(f"id-{number}", 1000.0 + number, milliseconds, share=share)


def test_calls_add_up() -> None:
    """Broken: counts, times and the newest examples of a kind of call would be wrong."""
    fold = Fold(10)
    shape = Shape("source", path="/a")
    for number in range(5):
        fold.add(shape, one(example(number, milliseconds=3.0 + number)))
    ((kept, record),) = fold.take()
    assert kept == shape
    assert record.count.calls == 5
    assert record.count.milliseconds == sum(3.0 + number for number in range(5))
    assert (record.first, record.last) == (1000.0, 1004.0)
    assert [found.id for found in record.examples] == ["id-4", "id-3", "id-2"]
    assert 1 < (quantile(record.count, 0.5) or 0) <= 10
    assert fold.take() == ()


def test_a_sample_stands_for_more() -> None:
    """Broken: one call in a hundred would count as one, and people would plan with a hundredth of their load."""
    record = merged(one(example(1, share=0.01)), one(example(2)))
    assert record.count.calls == 2
    assert record.estimate == 101


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=300))
def test_bounded(calls: list[tuple[int, int]]) -> None:
    """Broken: a client that makes up methods and paths would fill the memory of a node."""
    fold = Fold(10)
    for number, (path, code) in enumerate(calls):
        fold.add(Shape("source", path=f"/{path}", code=str(code)), one(example(number)))
    assert len(fold.rows) <= 20
    assert sum(record.count.calls for record in fold.rows.values()) + fold.dropped == len(calls)
    assert all(len(record.examples) <= EXAMPLES for record in fold.rows.values())
    assert all(len(record.count.buckets) == len(BOUNDS) for record in fold.rows.values())


def test_what_could_not_be_told_is_not_lost() -> None:
    """Broken: a control plane that restarts would miss the calls of that time."""
    fold = Fold(10)
    shape = Shape("source")
    fold.add(shape, one(example(1)))
    told = fold.take()
    fold.add(shape, one(example(2)))
    fold.put_back(told)
    assert fold.rows[shape].count.calls == 2


def test_details_without_addresses() -> None:
    """Broken: each endpoint and each error number would be a shape of its own."""
    said = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_111}"
    assert kind_of(said) == said.replace("111", "*") or "111" not in kind_of(said.replace("_111", " 111"))
    assert kind_of("a 10.1.2.3:8080 b") == "a * b"


def test_failing() -> None:
    """Broken: denials and errors would be lost in a sample of calls that went well."""
    assert failing("503", "", "via_upstream", "")
    assert failing("200", "DI", "via_upstream", "")
    assert failing("403", "", "rbac_access_denied_matched_policy[none]", "")
    assert failing("0", "", "rbac_access_denied_matched_policy[none]", "")
    assert failing("401", "", "jwt_authn_access_denied{Jwt_is_missing}", "")
    assert failing("200", "-", "via_upstream", "14")
    assert not failing("200", "-", "via_upstream", "0")
    assert not failing("404", "-", "via_upstream", "")
    assert not failing("403", "", "via_upstream", "")
