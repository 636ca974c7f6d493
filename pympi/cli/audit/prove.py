# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit prove`: that one record stands in an audit file, to be shown without the file."""

from __future__ import annotations

from pathlib import Path

import click

from .._artefacts import publish_files
from .._output import asking, json_option, plural, print_json, say
from ._audit import OWN_FILE


@click.command()
@click.argument("file", type=OWN_FILE)
@click.argument("sequence", type=click.IntRange(min=0))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default="proof.json",
    show_default=True, metavar="FILE", help="Where the proof goes.",
)  # fmt: skip
@click.option("--block", type=click.IntRange(min=1), help="The block that the record is in.")
@click.option("--head", default="", metavar="HASH", help="The hash of a block to end at.")
@json_option
def prove(
    file: Path, sequence: int, out: Path, block: int | None, head: str, as_json: bool
) -> int:  # fmt: skip
    """Prove that the record with number SEQUENCE stands in FILE.

    The proof has the record, what its numbers stand for, and the hashes that lead to the last block
    of the file, or to the one with the hash HASH. "pympi audit verify --proof" checks it, without
    FILE. A file of several kernels may have several records of one number: --block says which.
    """
    from ...audit.chain import Block
    from ...audit.proof import prove as run

    with asking():
        proof = run(file, sequence, block=block, head=head)
        raw = proof.packed()
        publish_files([(out, raw)], [file])
    first, last = Block.read(proof.blocks[0]), Block.read(proof.blocks[-1])
    if as_json:
        print_json({
            "file": str(file), "sequence": sequence, "block": first.number, "proof": str(out),
            "bytes": len(raw), "head": {"block": last.number, "hash": last.hash.hex()},
        })  # fmt: skip
        return 0
    size = plural(len(raw), "byte")
    say(f"wrote {out}, {size}: record {sequence:,} is in block {first.number:,}")
    say(f"it holds if block {last.number:,} has the hash {last.hash.hex()}")
    return 0
