"""`tulle rollout init`: what it writes can be applied, and begins."""

from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from tulle.api.own import Rollout
from tulle.cli.rollout import rollout
from tulle.core.rollout.plan import plan, unsupported

GIVEN = ["--service", "reviews", "--stable", "v2", "--candidate", "v3"]


@pytest.mark.parametrize(
    ("options", "weights", "rounds"),
    [
        (["--route", "httproute/reviews", "--step", "20", "--max", "40"], (20, 40), 1),
        (["--route", "httproute/reviews", "--mirror", "--step", "20", "--max", "40"], (0, 20, 40), 1),
        (["--route", "grpcroute/reviews", "--template", "blue-green", "--checks", "3"], (0,), 3),
        (["--route", "virtualservice/reviews/testers", "--template", "ab-test", "--checks", "4"], (100,), 4),
    ],
)
def test_a_template_begins(options: list[str], weights: tuple[int, ...], rounds: int) -> None:
    """Broken: what `init` prints would be refused, or roll out otherwise than its flags say."""
    done = CliRunner().invoke(rollout, ["init", "reviews", *GIVEN, *options])
    assert done.exit_code == 0, done.output
    spec = Rollout.model_validate(yaml.safe_load(done.output)).spec
    assert list(unsupported(spec)) == []
    assert (plan(spec).weights, plan(spec).rounds) == (weights, rounds)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--route", "virtualservice/reviews", "--template", "ab-test"], "needed KIND/NAME/RULE"),
        (["--route", "service/reviews"], "needed KIND/NAME, of KIND"),
        (["--route", "httproute/reviews", "--header", "cookie"], "needed NAME=EXPRESSION"),
    ],
)
def test_what_cannot_be_meant(options: list[str], said: str) -> None:
    """Broken: an A/B test would be printed that nothing can be done with."""
    done = CliRunner().invoke(rollout, ["init", "reviews", *GIVEN, *options])
    assert done.exit_code == 2
    assert said in done.output
