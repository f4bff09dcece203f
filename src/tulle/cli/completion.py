"""`tulle completion SHELL`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  source <(tulle completion bash)
    zsh:   source <(tulle completion zsh)
    fish:  tulle completion fish | source
    """
    from click.shell_completion import get_completion_class

    from tulle.cli.main import tulle

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(made(tulle, {}, "tulle", "_TULLE_COMPLETE").source())
