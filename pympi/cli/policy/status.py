# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy status`: which policies are in force in a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from .._output import print_json
from .._source import Source, source_arguments
from .._table import Column, print_table

if TYPE_CHECKING:
    from ...inspect import Module, Policy

COLUMNS = (
    Column("MODULE", least=12),
    Column("MODE"),
    Column("FAILURES", right=True),
    Column("SHADOW DIFFERS", right=True, spare=1),
)


@click.command()
@source_arguments()
def status(source: Source, as_json: bool) -> int:
    """Show the policy modules in force.

    A permissive module's refusals are recorded and not enforced. FAILURES counts questions that a
    module could not answer, which refuses what was asked; SHADOW DIFFERS the operations that a
    policy under trial would have decided otherwise.
    """
    policy = source.snapshot().policy if source.file else source.ask(lambda c: c.policy())
    print_policy(policy, as_json)
    return 0


def print_policy(policy: Policy, as_json: bool) -> None:
    """Print what is in force."""
    if as_json:
        print_json(msgspec.to_builtins(policy))
        return
    mode = "permissive: nothing is refused" if policy.permissive else "enforcing"
    click.echo(f"Epoch {policy.epoch:,}, {mode}." if policy.modules else _nothing(policy))
    if policy.failures:
        click.echo(f"Other questions without an answer: {policy.failures:,}.")
    if policy.modules:
        print_table(COLUMNS, [_row(module) for module in policy.modules])


def _nothing(policy: Policy) -> str:
    return f"Epoch {policy.epoch:,}, no policy: everything is allowed."


def _row(module: Module) -> tuple[str, ...]:
    return (
        module.name, "permissive" if module.permissive else "enforcing",
        f"{module.failures:,}", "" if module.shadow is None else f"{module.shadow:,}",
    )  # fmt: skip
