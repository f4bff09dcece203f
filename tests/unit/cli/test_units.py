"""The systemd units: what systemd itself thinks of them, and what they promise."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tulle.cli.run import run

FOLDER = Path(__file__).parents[3] / "packaging"
UNITS = {"tulle-control-plane.service": "", "tulle-node.service": "", "tulle-app@.service": "tulle-app@cart.service"}


def section(name: str, of: str) -> configparser.SectionProxy:
    """A section of a unit; of a setting that is given twice, the last."""
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign,unused-ignore]
    found.read_string((FOLDER / name).read_text())
    return found[of]


@pytest.mark.parametrize(("name", "instance"), UNITS.items())
def test_systemd_takes_them(name: str, instance: str, tmp_path: Path) -> None:
    """A setting that systemd does not know is passed over with a line in a log that nobody reads."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    for each in UNITS:  # they name one another; the program is this one, for it has to be there
        text = (FOLDER / each).read_text().replace("/usr/local/bin/tulle", sys.executable)
        (tmp_path / each).write_text(text)
    unit = tmp_path / (instance or name)
    unit.write_text((tmp_path / name).read_text())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    mine = [line for line in done.stderr.splitlines() if "tulle" in line]
    assert done.returncode == 0, done.stderr
    assert not mine, mine


def test_a_restart_of_the_agent_does_not_stop_applications() -> None:
    """An upgrade of tulle would take every application of the host down."""
    unit = section("tulle-app@.service", "Unit")
    assert "tulle-node.service" in unit["Wants"]
    assert not {"Requires", "BindsTo", "PartOf", "Requisite"} & set(unit)
    assert section("tulle-node.service", "Service")["KillMode"] == "process"


def test_the_template_speaks_the_command_line() -> None:
    """A renamed option would break every installed application at its next start."""
    command = section("tulle-app@.service", "Service")["ExecStart"]
    assert command == "/usr/local/bin/tulle run --service %i $RUN -- $COMMAND"
    options = {option for param in run.params for option in param.opts}
    example = (FOLDER / "tulle-app@.service").read_text().partition("RUN=")[2].partition("    ")[0]
    words = [word for word in example.split() if word.startswith("--")]
    assert words
    assert set(words) <= options
