"""The entry point: the table of commands, and what a person sees when one fails.

Data goes to standard output, everything else to standard error. Exit codes are those of `kit.errors.Exit`.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, NoReturn

import click

from tulle import __version__
from tulle.cli.lazy import Entry, LazyGroup
from tulle.cli.terminal import fail, plain

COMMANDS = {
    "demo": Entry("tulle.cli.demo:demo", "Run the mesh with a sample application on this machine"),
    "run": Entry("tulle.cli.run:run", "Run a process in the mesh, behind a sidecar of its own"),
    "gateway": Entry("tulle.cli.gateway:gateway", "Run an ingress or egress gateway on this host"),
    "exec": Entry("tulle.cli.run:exec_", "Run a command in a workload's network"),
    "control-plane": Entry("tulle.cli.control_plane:control_plane", "Run the control plane"),
    "node": Entry("tulle.cli.node:node", "Run this host's node agent"),
    "backup": Entry("tulle.cli.backup:backup", "Write everything that the control plane has into a file"),
    "restore": Entry("tulle.cli.backup:restore", "Bring back what a backup has"),
    "token": Entry("tulle.cli.token:token", "Join tokens for nodes"),
    "ca": Entry("tulle.cli.ca:ca", "What signs the mesh's certificates, and its rotation"),
    "identity": Entry("tulle.cli.identity:identity", "Take stolen identities back"),
    "federation": Entry("tulle.cli.federation:federation", "Trust bundles: this trust domain's, and those of others"),
    "certs": Entry("tulle.cli.ca:certs", "The certificates of workloads and nodes, and when they end"),
    "apitoken": Entry("tulle.cli.apitoken:apitoken", "Bearer tokens for people and programs"),
    "apply": Entry("tulle.cli.apply:apply", "Create or change objects from files"),
    "analyze": Entry("tulle.cli.analyze:analyze", "Look for mistakes in files and in the mesh"),
    "get": Entry("tulle.cli.get:get", "Show objects"),
    "delete": Entry("tulle.cli.delete:delete", "Delete objects"),
    "diff": Entry("tulle.cli.diff:diff", "What apply would change"),
    "history": Entry("tulle.cli.history:history", "Who changed what, and how it was before"),
    "rollback": Entry("tulle.cli.rollback:rollback", "Bring an object, or the whole mesh, back to how it was"),
    "wait": Entry("tulle.cli.wait:wait", "Wait until every proxy has what was written"),
    "kubeconfig": Entry("tulle.cli.kubeconfig:kubeconfig", "Print the path of the kubeconfig for kubectl"),
    "check": Entry("tulle.cli.check:check", "Look for what is wrong with this machine and this mesh"),
    "describe": Entry("tulle.cli.describe:describe", "What the mesh does with a host's requests, and why"),
    "dashboard": Entry("tulle.cli.dashboard:dashboard", "Open the mesh's page in a browser"),
    "stat": Entry("tulle.cli.stat:stat", "Success, requests a second and latency of services"),
    "edges": Entry("tulle.cli.stat:edges", "Who calls whom, and how that goes"),
    "routes": Entry("tulle.cli.stat:routes", "The same of the rules by which requests are routed"),
    "top": Entry("tulle.cli.top:top", "The busiest services, workloads, edges or routes, live"),
    "graph": Entry("tulle.cli.graph:graph", "Who calls whom, as text or for dot and mermaid"),
    "calls": Entry("tulle.cli.recorded:calls", "Recorded calls: a sample, and what failed"),
    "explain": Entry("tulle.cli.recorded:explain", "Why a request got its status"),
    "traces": Entry("tulle.cli.traces:traces", "Requests with all that they caused, as waterfalls"),
    "observability": Entry("tulle.cli.observability:observability", "Configuration for Prometheus, Grafana and alerts"),
    "rollout": Entry("tulle.cli.rollout:rollout", "New versions, step by step, and back when they fail"),
    "ratelimit": Entry("tulle.cli.ratelimit:ratelimit", "Rate limits: how close they are, and who is refused"),
    "logs": Entry("tulle.cli.logs:logs", "A workload's access log"),
    "tap": Entry("tulle.cli.tap:tap", "A workload's requests, live"),
    "mtls": Entry("tulle.cli.mtls:mtls", "Who still calls in plaintext, and strict mutual TLS"),
    "authz": Entry("tulle.cli.authz:authz", "Who may call whom"),
    "proxy": Entry("tulle.cli.proxy:proxy", "What the proxies have, and what they were sent"),
    "version": Entry("tulle.cli.version:version", "Print versions"),
    "completion": Entry("tulle.cli.completion:completion", "Print the completion script of a shell"),
}
SECTIONS = {
    "Start": ("demo", "run", "gateway", "exec"),
    "Programs": ("control-plane", "node", "backup", "restore", "token", "apitoken", "ca", "identity"),
    "Objects": ("apply", "analyze", "get", "delete", "diff", "history", "rollback", "rollout", "wait", "kubeconfig"),
    "Look inside": (
        "check",
        "dashboard",
        "stat",
        "edges",
        "routes",
        "top",
        "graph",
        "calls",
        "explain",
        "traces",
        "ratelimit",
        "logs",
        "tap",
        "describe",
        "mtls",
        "authz",
        "proxy",
        "certs",
        "federation",
        "observability",
    ),
    "About": ("version", "completion"),
}


# Modules are many objects that stay, and nearly all of a short command: nothing is looked for among so many. Programs that stay
# say how it goes on (`app/collector.py`).
_YOUNG = 200_000


@click.group(
    "tulle",
    cls=LazyGroup,
    entries=COMMANDS,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `tulle demo up`. Every setting of a program is a flag and a TULLE_* variable.",
)
@click.version_option(__version__, "--version", message="tulle %(version)s", help="Print the version of tulle.")
@click.pass_context
def tulle(ctx: click.Context) -> None:
    """A service mesh that you can pip install."""
    if plain():
        ctx.color = False


def main(argv: list[str] | None = None) -> NoReturn:
    """Run `tulle` and exit with the status that its users expect."""
    gc.set_threshold(_YOUNG)
    status = run(argv)
    gc.freeze()  # nobody waits for cycles to be found in what is left
    sys.exit(status)


def run(argv: list[str] | None = None) -> int:
    """The exit status of a command line; failures are printed."""
    try:
        result: Any = tulle.main(args=argv, prog_name="tulle", standalone_mode=False)
    except click.ClickException as error:
        return _usage(error)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read has enough (`tulle get | head`); the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _failure(error)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(result) if isinstance(result, int) else 0


def _usage(error: click.ClickException) -> int:
    """Typed wrong: the word that is wrong, and where help is. 64; a file that cannot be opened is 1."""
    if not isinstance(error, click.UsageError):
        fail(error.format_message())
        return 1
    path = error.ctx.command_path if error.ctx else "tulle"
    fail(error.format_message(), f"`{path} --help` lists what it takes")
    return 64


def _failure(error: Exception) -> int:
    """What tulle knows to say as a sentence is said so; anything else is a bug and keeps its traceback."""
    from tulle.kit.errors import BadData, TulleError

    if isinstance(error, BadData):
        for problem in error.problems:
            click.echo(str(problem), err=True)
        fail(_count(error), error.hint)
        return int(error.exit)
    if isinstance(error, TulleError):
        fail(error.message, error.hint)
        return int(error.exit)
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1 and isinstance(error.exceptions[0], TulleError):
        return _failure(error.exceptions[0])
    raise error


def _count(error: Any) -> str:
    number = len(error.problems)
    return f"{number} problem{'s' if number != 1 else ''}; nothing was written"
