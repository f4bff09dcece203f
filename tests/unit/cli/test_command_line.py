"""What every command has in common: help without imports, exit codes, errors as sentences, colours only where wanted."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import click
import pytest

from tests.unit.cli.conftest import Shell
from tulle.cli import main


def own_process(env: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: for what only that has."""
    return subprocess.run(
        [sys.executable, "-m", "tulle", *argv], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("argv", [["--help"], ["version"], ["completion", "bash"]])
def test_small_commands_import_nothing_of_the_mesh(argv: list[str]) -> None:
    """Slow start: these answer below 0.2 s because they load click, themselves, and nothing heavy."""
    code = (
        "import sys, json\nfrom tulle.cli.main import run\n"
        f"status = run({argv!r})\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    heavy = {"aiohttp", "pydantic", "grpc", "google.protobuf", "yaml", "rich", "cryptography", "structlog", "msgspec", "asyncio"}
    assert not heavy & modules
    assert len(modules) < 330, f"{len(modules)} modules for {argv}"


def test_help_lines_say_what_the_commands_are() -> None:
    """The table that help prints from and the commands would drift apart: one that cannot be loaded, or is called otherwise."""
    assert sorted(name for names in main.SECTIONS.values() for name in names) == sorted(main.COMMANDS)
    for name, entry in main.COMMANDS.items():
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        assert command.name == name
        assert command.help, f"tulle {name} has no help"


def test_every_option_has_help_or_a_name_that_says_it() -> None:
    """`--help` of a command would list a flag that nobody can guess the meaning of."""
    for entry in main.COMMANDS.values():
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        for each in [command, *getattr(command, "commands", {}).values()]:
            for option in each.params:
                clear = {"output", "log_level", "capture", "level"}
                assert not isinstance(option, click.Option) or option.help or option.name in clear, f"{each.name} {option.name}"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["aply"], ("aply", "apply")),
        (["get"], ("KIND",)),
        (["get", "virtualservic"], ("virtualservic", "virtualservice")),
        (["apply", "--no-such-flag"], ("--no-such-flag",)),
        (["demo", "up", "--capture", "magic"], ("magic", "netns")),
        (["run", "--service", "x", "--port", "http", "--", "true"], ("http", "P[:PROTOCOL")),
        (["run", "--service", "x", "--port", "80:htp", "--", "true"], ("htp", "http2")),
        (
            ["run", "--service", "x", "--exclude-outbound-ports", "25; drop", "--", "true"],
            ("outbound-ports", "3306,6379"),
        ),
        (["run", "--service", "x", "--include-outbound-ip-ranges", "10.0.0/8", "--", "true"], ("10.0.0/8", "10.0.0.0/8")),
        (["run", "--service", "x", "--annotation", "novalue", "--", "true"], ("--annotation", "KEY=VALUE")),
        (["node", "unistall"], ("unistall", "No such command")),
        (["wait", "--for=synced", "--timeout", "soon"], ("soon", "20s")),
        (["delete"], ("KIND NAME", "-f")),
        (["delete", "vs"], ("name", "--all")),
        (["exec", "curl", "--"], ("COMMAND",)),
        (["proxy", "config", "cluster"], ("WORKLOAD",)),
        (["token", "create", "--allow", "all"], ("all", "NAMESPACE/SERVICEACCOUNT")),
    ],
)
def test_what_is_typed_wrong_is_64(nowhere: Shell, argv: list[str], words: tuple[str, ...]) -> None:
    """Scripts could not tell a typing mistake from a failure; people would not see what is wrong."""
    done = nowhere(*argv)
    assert done.returncode == 64, done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "argv", [["get", "services"], ["proxy", "status"], ["kubeconfig"], ["wait", "--for=synced"], ["token", "create"]]
)
def test_without_a_mesh_a_sentence_and_a_hint(nowhere: Shell, argv: list[str]) -> None:
    """A newcomer would see a stack of exceptions instead of what to do."""
    done = nowhere(*argv)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no mesh is known")
    assert "tulle demo up" in done.stderr
    assert done.stdout == ""
    assert "\x1b" not in done.stderr, "a pipe gets no colours"


def test_without_a_command_help_and_success(nowhere: Shell) -> None:
    """`tulle` and `tulle proxy` alone show what there is."""
    for argv in ([], ["proxy"], ["demo"], ["token"]):
        done = nowhere(*argv)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: tulle")


def test_version_names_the_envoy(nowhere: Shell) -> None:
    """A bug report would not say which data plane it is about."""
    assert "1.40" in nowhere("version").stdout
    assert json.loads(nowhere("version", "-o", "json").stdout)["envoy"].startswith("1.40")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(nowhere: Shell, shell: str) -> None:
    """Tab would do nothing: the script and the answer that it asks for."""
    assert "_TULLE_COMPLETE" in nowhere("completion", shell).stdout
    asked = {"_TULLE_COMPLETE": "bash_complete", "COMP_WORDS": "tulle pro", "COMP_CWORD": "1"}
    assert "proxy" in own_process({**nowhere.env, **asked}).stdout


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)]
)
def test_colours_only_where_they_are_wanted(nowhere: Shell, environment: dict[str, str], coloured: bool) -> None:
    """On a terminal errors are red, except where NO_COLOR or TERM=dumb says no."""
    script = ["script", "-qec", f"{sys.executable} -m tulle aply", "/dev/null"]
    env = {name: value for name, value in nowhere.env.items() if name != "NO_COLOR"}
    try:
        done = subprocess.run(
            script, env={**env, "TERM": "xterm", **environment}, capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        pytest.skip("script (util-linux) is not here")
    assert ("\x1b[31m" in done.stdout) is coloured


def test_a_reader_that_goes_is_no_failure(nowhere: Shell) -> None:
    """`tulle completion zsh | head -1` would end with a traceback about a broken pipe."""
    command = f"{sys.executable} -m tulle completion zsh | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=nowhere.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


def test_python_m_tulle_and_its_exit_status(nowhere: Shell) -> None:
    """The module would not run, or its exit status would be lost on the way out of the process."""
    done = own_process(nowhere.env, "get", "services")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no mesh is known")
    assert own_process(nowhere.env, "aply").returncode == 64
