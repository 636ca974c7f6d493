# SPDX-License-Identifier: BSD-2-Clause
"""`pympi completion`: what a shell needs to complete verbs, options and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

#: The file where it belongs, and the line, by shell.
_PLACES = {
    "bash": ("~/.bashrc", 'eval "$(pympi completion bash)"'),
    "zsh": ("~/.zshrc", 'eval "$(pympi completion zsh)"'),
    "fish": ("~/.config/fish/completions/pympi.fish", "pympi completion fish | source"),
}
_LINES = "\n\n".join(f"\b\n{place}:\n  {line}" for place, line in _PLACES.values())


@click.command(epilog=f"What to write where, for good:\n\n{_LINES}")
@click.argument("shell", type=click.Choice([*_PLACES]))
def completion(shell: str) -> int:
    """Print what has a shell complete pympi."""
    from . import cli

    found = get_completion_class(shell)
    assert found is not None, "click knows these three"
    click.echo(found(cli, {}, "pympi", "_PYMPI_COMPLETE").source())
    return 0
