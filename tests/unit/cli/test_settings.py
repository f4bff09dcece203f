"""Every setting of a program is a flag and a variable; durations, ages and ports are read and written as people expect."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta

import click
import pytest

from tulle.app.node import NodeSettings
from tulle.app.settings import ControlPlaneSettings, DemoSettings
from tulle.cli.control_plane import control_plane
from tulle.cli.demo import up
from tulle.cli.get import age
from tulle.cli.node import node
from tulle.cli.run import parse_port
from tulle.cli.setting import duration


@pytest.mark.parametrize(
    ("settings", "command"), [(ControlPlaneSettings, control_plane), (DemoSettings, up), (NodeSettings, node)]
)
def test_every_setting_is_a_flag_and_a_variable(settings: type, command: click.Command) -> None:
    """A setting could be given in Python only, or would silently have another default on the command line."""
    options = {option.name: option for option in command.params if isinstance(option, click.Option)}
    for field in dataclasses.fields(settings):
        option = options.get(field.name)
        assert option is not None, f"{field.name} has no flag"
        if field.name != "detach":
            assert option.envvar, f"{field.name} has no variable"
            variable = option.envvar[0] if isinstance(option.envvar, list | tuple) else option.envvar
            # Two programs on one machine share what is the machine's, and nothing else.
            own = {"name", "state_dir", "address"} if settings is NodeSettings else set()
            assert variable == f"TULLE_{'NODE_' if field.name in own else ''}{field.name.upper()}"
    assert set(options) == {field.name for field in dataclasses.fields(settings)}


def test_defaults_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sources of one default would drift apart."""
    for name in [name for name in os.environ if name.startswith("TULLE_") or name in ("TRUST_DOMAIN", "SECRET_TTL")]:
        monkeypatch.delenv(name)
    pairs: tuple[tuple[ControlPlaneSettings | DemoSettings | NodeSettings, click.Command], ...] = (
        (ControlPlaneSettings(), control_plane),
        (DemoSettings(), up),
        (NodeSettings(), node),
    )
    for settings, command in pairs:
        given = command.make_context("x", []).params
        for field in dataclasses.fields(settings):
            if given[field.name] is not None:  # None: the settings' own default, which depends on the user
                assert given[field.name] == getattr(settings, field.name), field.name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20s", 20), ("500ms", 0.5), ("5m", 300), ("24h", 86400), ("1m30s", 90), ("1.5h", 5400), ("7", 7), ("2d", 172800)],
)
def test_durations(text: str, seconds: float) -> None:
    """`--timeout 20s` would wait for something else."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "20x", "5 m", "-1s", "1m-", "1s2"])
def test_what_is_no_duration(text: str) -> None:
    """It would be read as zero, or half of it would be."""
    with pytest.raises(click.BadParameter, match="needed a duration"):
        duration(text)


def test_ports() -> None:
    """A port's parts would get mixed up."""
    assert parse_port("9080").number == 9080
    port = parse_port("80:http:8080")
    assert (port.number, port.protocol, port.target) == (80, "http", 8080)
    for wrong in ("0", "65536", "80:http:x", "http", "", "٣"):
        with pytest.raises(click.BadParameter, match="needed"):
            parse_port(wrong)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (5, "5s"),
        (119, "119s"),
        (200, "3m20s"),
        (1200, "20m"),
        (7500, "125m"),
        (14700, "4h5m"),
        (90000, "25h"),
        (400000, "4d"),
        (-3, "0s"),
    ],
)
def test_ages_are_written_as_kubectl_writes_them(seconds: int, shown: str) -> None:
    """Scripts that read kubectl's tables would stumble over ours."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert age((now - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"), now) == shown
