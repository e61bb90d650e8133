"""``trunkline completion``: the script by which a shell completes our commands and options."""

from __future__ import annotations

import sys

import click

from trunkline.bus.process import EXIT_DONE

#: The environment variable in which a shell tells click that it asks for completions.
VARIABLE = "_TRUNKLINE_COMPLETE"


@click.command(short_help="Print the script for completion in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands and options.

    \b
    Examples:
      eval "$(trunkline completion bash)"                  in ~/.bashrc
      eval "$(trunkline completion zsh)"                   in ~/.zshrc
      trunkline completion fish > ~/.config/fish/completions/trunkline.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click knows the shells that the argument allows"
    root = context.find_root()
    # Not source(): for bash it checks the version of the bash in PATH, and another one may read it.
    made = found(root.command, {}, "trunkline", VARIABLE)
    click.echo(made.source_template % made.source_vars())
    sys.exit(EXIT_DONE)
