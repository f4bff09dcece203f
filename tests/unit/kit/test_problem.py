"""How mistakes read."""

from __future__ import annotations

from tulle.kit.errors import BadData, Exit
from tulle.kit.problem import Location, Problem, Ref


def test_a_problem_reads_from_place_to_sentence() -> None:
    """A person could not find the mistake in their file."""
    problem = Problem(
        ref=Ref("VirtualService", "default", "reviews", "networking.istio.io"),
        path="spec.hosts",
        reason="HostNotFound",
        message="no Service ratingz in namespace default",
        location=Location("reviews.yaml", 12, 9),
    )
    assert str(problem) == (
        "reviews.yaml:12:9: VirtualService default/reviews: spec.hosts: no Service ratingz in namespace default"
    )


def test_a_problem_without_object_or_place_is_its_message() -> None:
    """Documents that could not be understood would read `None: None:`."""
    assert str(Problem(ref=None, path="", reason="Unparsable", message="not YAML")) == "not YAML"


def test_cluster_scoped_objects_have_no_namespace_in_their_name() -> None:
    """`Namespace /default` is no name that anybody types."""
    assert str(Ref("Namespace", "", "default")) == "Namespace default"


def test_bad_data_carries_every_problem_and_exits_65() -> None:
    """Only the first mistake would be shown, or scripts would not see that the data was at fault."""
    problems = [Problem(ref=None, path="a", reason="R", message="one"), Problem(ref=None, path="b", reason="R", message="two")]
    error = BadData(problems)
    assert error.exit is Exit.BAD_DATA
    assert error.message.splitlines() == ["a: one", "b: two"]
