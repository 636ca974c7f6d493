# SPDX-License-Identifier: BSD-2-Clause
"""What the verbs about recordings share: reading them, and what they say of a policy's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._output import progress, warn_of_loss
from . import _policy as ui

if TYPE_CHECKING:
    from ...policy.author.coverage import Coverage, RuleUse
    from ...policy.author.recording import Recording
    from ...policy.cil.policydb import PolicyDatabase

RECORDINGS = "TRACE-OR-AUDIT..."


@contextmanager
def reading(paths: Sequence[Path], *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Show how much of the recordings was read; what is wrong in here is the input's fault."""
    with ui.bad_input():
        total = sum(path.stat().st_size for path in paths)
        with progress("reading", total, hidden=hidden) as advance:
            yield advance


def warn_of_losses(recordings: Iterable[Recording]) -> None:
    """Say on stderr which recordings lack something, and which tell of it by estimates."""
    for each in recordings:
        warn_of_loss(each.name, each.lost, "event")
        if each.sampled:
            ui.complain(f"{each.name} was sampled by chance: counts are estimates")


def covered(policy: Path, paths: Sequence[Path], *, hidden: bool) -> Coverage:
    """Return what was used of a policy in recordings."""
    from ...policy.author.coverage import coverage
    from ...policy.author.recording import read_recording

    with ui.asking():
        database = ui.database([policy])
    with reading(paths, hidden=hidden) as advance:
        read = [read_recording(path, advance) for path in paths]
    warn_of_losses(read)
    _warn_of_strangers(policy, database, read)
    with ui.asking():
        return coverage(database, {grant for r in read for grant in (*r.used, *r.closure)})


def _warn_of_strangers(
    policy: Path, database: PolicyDatabase, recordings: Iterable[Recording]
) -> None:
    """Say on stderr of which recordings the policy has no type: they can have used nothing.

    Types of initial SIDs are in every policy, and tell nothing.
    """
    anywhere = {database.types[sid.type].name for sid in database.initial_sids.values()}
    known = {each.name for each in database.types[: database.type_count]}
    for each in recordings:
        types = {context.type for context in each.contexts} - anywhere
        if types and not types & known:
            found = f"{min(types)}{' and others' * (len(types) > 1)}"
            ui.complain(
                f"{each.name} used no type of {policy}, but {found}: is it another policy's?"
            )


def place(each: RuleUse) -> dict[str, Any]:
    """Return the rule and where it is, for programs."""
    return {"file": each.origin.file, "line": each.origin.line, "rule": each.rule}
