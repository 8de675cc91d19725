"""`sphere completion`."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Examples:
      source <(sphere completion bash)
      sphere completion fish > ~/.config/fish/completions/sphere.fish
    """
    completer = get_completion_class(shell)
    if completer is None:
        raise click.ClickException(f"no completion for {shell}")
    click.echo(completer(ctx.find_root().command, {}, "sphere", "_SPHERE_COMPLETE").source())
