# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit verify`: whether an audit file, or a proof, is what was written."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._output import FILE, asking, bad_input, json_option, plural, print_json, progress, say
from ._audit import OWN_FILE

if TYPE_CHECKING:
    from ...audit.proof import Proven
    from ...audit.verify import Finding, Verdict

SOUND, UNSOUND = 0, 1


@click.command()
@click.argument("file", type=OWN_FILE, required=False)
@click.option("--key", type=FILE, help="The key it was begun with: its MACs are checked, too.")
@click.option("--head", default="", metavar="HASH", help="A block's hash, noted earlier elsewhere.")
@click.option("--closed", is_flag=True, help="Exit code 1 if it was not closed, too.")
@click.option("--proof", type=FILE, help="Check this proof of one record, and no file.")
@json_option
def verify(
    file: Path | None, key: Path | None, head: str, closed: bool, proof: Path | None, as_json: bool
) -> int:  # fmt: skip
    """Look whether every byte of an audit FILE is what was written; if not, say where it is not.

    Exit code 0: sound; its end may be open, because it is still written, or its writer was killed,
    or its last blocks were cut off. 1: damaged. Who could change the file may have made all of it
    anew: only a hash that was noted elsewhere (--head), or a key, can tell that.
    """
    if (file is None) == (proof is None):
        raise click.UsageError("Give either an audit FILE, or --proof.")
    if head and not re.fullmatch("[0-9A-Fa-f]{64}", head):
        raise click.UsageError("HASH has 64 hexadecimal digits.")
    if proof:
        return _of_proof(proof, key, head, as_json)
    return _of_file(file, key, head, closed, as_json)


def _secret(key: Path | None) -> bytearray | None:
    from ...audit.chain import read_key

    return read_key(key) if key else None


# ---- files ----


def _of_file(file: Path | None, key: Path | None, head: str, closed: bool, as_json: bool) -> int:
    from ...audit.verify import verify as run

    assert file
    began = time.perf_counter()
    with bad_input():
        secret = _secret(key)
        with progress("verifying", file.stat().st_size, hidden=as_json) as advance:
            verdict = run(file, key=secret, head=head, advance=advance)
    if as_json:
        print_json(_as_dict(verdict))
    else:
        _print(verdict, head, time.perf_counter() - began)
    wanted = {"closed"} if closed else {"closed", "open"}
    return SOUND if verdict.state in wanted else UNSOUND


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    number, hashed = verdict.head
    return {
        "file": verdict.file, "state": verdict.state, "identity": verdict.identity,
        "blocks": verdict.blocks, "records": verdict.records, "first": verdict.first,
        "last": verdict.last, "missing": verdict.missing, "size": verdict.size,
        "sound_up_to": verdict.end, "torn": 0 if verdict.findings else verdict.torn,
        "head": {"block": number, "hash": hashed}, "head_found": verdict.head_found,
        "keyed": verdict.keyed, "key_checked": verdict.key_checked,
        "findings": (finding._asdict() for finding in verdict.findings),
        "unlisted": verdict.unlisted,
    }  # fmt: skip


def _print(verdict: Verdict, head: str, seconds: float) -> None:
    colour = {"closed": "green", "open": "yellow", "damaged": "red"}[verdict.state]
    say(f"{verdict.file}: {_sentence(verdict)}", fg=colour, bold=True)
    for finding in verdict.findings:
        say(_place(finding), "  ", "      ")
    if verdict.unlisted:
        say(f"and {verdict.unlisted:,} more", "  ")
    say(_extent(verdict, seconds))
    number, hashed = verdict.head
    say(f"last {'sound ' * bool(verdict.findings)}block: {number:,}, hash {hashed}")
    if trust := _trust(verdict, head):
        say(trust)


def _sentence(verdict: Verdict) -> str:
    if verdict.state == "damaged":
        return f"damaged: {plural(len(verdict.findings) + verdict.unlisted, 'finding')}"
    if verdict.state == "closed":
        return "closed and sound"
    number, _ = verdict.head
    place = f"block {number:,}, record {verdict.last:,}" if verdict.records else f"block {number:,}"
    torn = f"; {plural(verdict.torn, 'byte')} of an unfinished block follow" if verdict.torn else ""
    return f"open end: sound up to {place}{torn}"


def _place(finding: Finding) -> str:
    records = ""
    if finding.first >= 0:
        several = f"s {finding.first:,} to {finding.last:,}"
        one = finding.first == finding.last
        records = f" (record{f' {finding.first:,}' if one else several})"
    return f"byte {finding.at:,}: {finding.message}{records}"


def _extent(verdict: Verdict, seconds: float) -> str:
    numbers = f", {verdict.first:,} to {verdict.last:,}" if verdict.records else ""
    missing = f" ({plural(verdict.missing, 'number')} left out)" if verdict.missing else ""
    speed = f" in {seconds:.1f} s, {verdict.size / 1e6 / seconds:,.0f} MB/s" if seconds > 1 else ""
    return (
        f"{plural(verdict.blocks, 'sound block')}, {plural(verdict.records, 'record')}{numbers}"
        f"{missing}; {plural(verdict.size, 'byte')}{speed}"
    )


def _trust(verdict: Verdict, head: str) -> str:
    if verdict.key_checked and not verdict.findings:
        return (
            "every block has the MAC of this key: who took over the process could make later ones"
        )
    if head and verdict.head_found and not verdict.findings:
        return "the hash that was noted is in it: nothing up to there was changed since"
    if verdict.keyed and not verdict.key_checked:
        return "it has MACs, which --key checks"
    if verdict.findings:
        return "" if verdict.unlisted else "blocks that are not named here are sound"
    return "note this hash elsewhere: without it, the file could be made anew and nobody would know"


# ---- proofs ----


def _of_proof(path: Path, key: Path | None, head: str, as_json: bool) -> int:
    from ...audit.proof import NotProven, check, load

    with asking():
        proof = load(path)
        try:
            proven = check(proof, head=head, key=_secret(key))
        except NotProven as error:
            return _refuse(path, error, as_json)
    if as_json:
        print_json({"proof": str(path), "holds": True, "why": None, **_proven(proven)})
    else:
        _print_proven(path, proven)
    return SOUND


def _refuse(path: Path, error: Exception, as_json: bool) -> int:
    if as_json:
        print_json({"proof": str(path), "holds": False, "why": str(error)})
    else:
        say(f"{path}: does not hold: {error}", fg="red", bold=True)
    return UNSOUND


def _proven(proven: Proven) -> dict[str, Any]:
    number, hashed = proven.head
    flags = int(proven.record.flags)
    return {
        "record": proven.record._asdict() | {"flags": flags}, "file": proven.file,
        "block": proven.block, "head": {"block": number, "hash": hashed}, "noted": proven.noted,
        "key_checked": proven.keyed,
    }  # fmt: skip


def _print_proven(path: Path, proven: Proven) -> None:
    number, hashed = proven.head
    record = proven.record
    holds = "holds" if proven.noted or proven.keyed else "holds if the hash below is the file's"
    say(f"{path}: {holds}", fg="green", bold=True)
    say(f"record {record.sequence:,} is in block {proven.block:,} of file {proven.file}:")
    for name, value in record._asdict().items():
        if shown := _shown(name, value):
            say(f"{name:<12} {shown}", "  ", " " * 15)
    say(f"block {number:,} has the hash {hashed}{', as noted' if proven.noted else ''}")
    if proven.keyed:
        say("its blocks were written with this key")


def _shown(name: str, value: Any) -> str:
    if name == "flags":
        return str(value.name or int(value)).lower() if value else ""
    if (name, value) in (("lost", 0), ("weight", 1)):
        return ""
    return " ".join(value) if isinstance(value, tuple) else str(value)
