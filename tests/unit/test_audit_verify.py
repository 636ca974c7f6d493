# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit verify`, `prove` and `key`: what was changed is found, and a record is proven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import audit_files as make
import msgspec
import pytest

from pympi import audit
from pympi.audit import AuditError, Batch, File, verify
from pympi.audit.chain import BLOCK, Block, ForwardKey, make_key, read_key
from pympi.audit.proof import Leaf, NotProven, ProofError, check, load, prove
from pympi.cli import main

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("run.audit")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["audit", *words])
    return code, capsys.readouterr().out


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


# ---- verify ----


def test_what_it_says_of_a_sound_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make.write(path)
    code, out = run(capsys, "verify", "run.audit", "--closed")
    assert code == 0
    assert out.splitlines()[0] == "run.audit: closed and sound"
    assert "5 sound blocks, 65 records, 1 to 65" in out
    assert "note this hash elsewhere" in out


def test_an_open_end(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = make.write(path)
    path.write_bytes(b"".join(parts[:-1]) + parts[-1][:30])
    assert run(capsys, "verify", "run.audit")[0] == 0
    code, out = run(capsys, "verify", "run.audit", "--closed")
    assert code == 1
    expected = "open end: sound up to block 4, record 65; 30 bytes of an unfinished block follow"
    assert out.splitlines()[0] == f"run.audit: {expected}"
    path.write_bytes(parts[0])
    assert "sound up to block 0\n" in run(capsys, "verify", "run.audit")[1]


def test_records_that_were_changed_are_named(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A leaf has sixteen records; of a frame of records, the first leaf has its header, too."""
    parts = make.write(path, (100,))
    start = len(parts[0]) + len(parts[1])
    frame = parts[2].index(b"RECS")
    for record, (first, last) in ((0, (1, 16)), (16, (17, 32)), (31, (17, 32)), (99, (97, 100))):
        path.write_bytes(b"".join(parts))
        flip(path, start + frame + 8 + record * 104 + 90)
        (finding,) = verify(path).findings
        assert (finding.block, finding.first, finding.last) == (2, first, last)
        leaf = frame + 8 + (first - 1) * 104 if first > 1 else frame
        assert finding.at == start + leaf
    flip(path, start + frame + 8 + 50 * 104)
    code, out = run(capsys, "verify", "run.audit")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "run.audit: damaged: 2 findings"
    assert lines[1].endswith(": block 2: records were changed (records 49 to 64)")
    found = json.loads(run(capsys, "verify", "run.audit", "--json")[1])
    assert (found["state"], found["blocks"], found["records"]) == ("damaged", 2, 0)
    assert [(each["first"], each["last"]) for each in found["findings"]] == [(49, 64), (97, 100)]


def test_neighbours_that_were_changed_are_one_finding(path: Path) -> None:
    parts = make.write(path, (100,))
    start = len(parts[0]) + len(parts[1]) + parts[2].index(b"RECS") + 8
    flip(path, start + 20 * 104)
    flip(path, start + 40 * 104)
    (finding,) = verify(path).findings
    assert (finding.first, finding.last) == (17, 48)


def test_what_else_was_changed_is_named(path: Path) -> None:
    parts = make.write(path)
    start = len(parts[0]) + len(parts[1])
    for at, message in (
        (start + 3, "block 2: no header that is sound"),
        (start + parts[2].index(b"LABL") + 13, "block 2: a frame was changed"),
        (start + parts[2].index(b"LABL") + 4, "block 2: changed from here on"),
        (start + parts[2].index(b"RECS") + 4, "block 2: changed from here on"),
        (start + len(parts[2]) - 1, "block 2: the hashes of leaves were changed"),
    ):
        path.write_bytes(b"".join(parts))
        flip(path, at)
        (finding,) = verify(path).findings
        assert finding.message.startswith(message)


@pytest.mark.parametrize("by", [-200, 104, -1])
def test_bytes_that_were_cut_out_or_put_in_are_located(path: Path, by: int) -> None:
    parts = make.write(path, (100,))
    at = parts[2].index(b"RECS") + 8 + 60 * 104
    middle = b"" if by < 0 else bytes(by)
    parts[2] = parts[2][:at] + middle + parts[2][at - min(by, 0) :]
    path.write_bytes(b"".join(parts))
    (finding,) = verify(path).findings
    amount = f"{abs(by)} bytes {'missing' if by < 0 else 'too many'}"
    assert "changed from here on" in finding.message
    assert finding.message.endswith(f"; {amount}")
    assert (finding.first, finding.last) == (49, 100)
    assert verify(path).blocks == 2


def test_damage_that_is_everywhere(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make.write(path, [1] * 1100)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"port_t", b"part_t"))
    verdict = verify(path)
    assert (len(verdict.findings), verdict.unlisted) == (1000, 100)
    assert "and 100 more" in run(capsys, "verify", "run.audit")[1]


def test_records_that_are_left_out_are_counted(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with File(path) as file:
        file(make.batch(5, 10))
        file(make.batch(5, 20))
    assert verify(path).missing == 5
    assert "10 records, 10 to 24 (5 numbers left out)" in run(capsys, "verify", "run.audit")[1]


def test_a_hash_that_was_noted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with File(path) as file:
        file(make.batch(5))
        file.flush()
        _, noted = file.head
        file(make.batch(5, 6))
    code, out = run(capsys, "verify", "run.audit", "--head", noted.upper())
    assert code == 0
    assert "the hash that was noted is in it" in out
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"RECS", b"RECT", 1))
    code, out = run(capsys, "verify", "run.audit", "--head", noted)
    assert code == 1
    assert "the hash that was noted is in it" not in out  # the header of its block is, no more
    path.write_bytes(whole)
    parts = make.pieces(path.read_bytes())
    path.write_bytes(b"".join(parts[:2]))
    code, out = run(capsys, "verify", "run.audit", "--head", noted)
    assert code == 1
    assert "no block has the hash that was noted" in out


def test_half_of_a_key_is_none(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("ab" * 3000)
    with pytest.raises(ValueError, match="expected a key"):
        read_key(tmp_path / "key")


@pytest.mark.parametrize("closed", [True, False])
def test_a_key(path: Path, capsys: pytest.CaptureFixture[str], closed: bool) -> None:
    assert run(capsys, "key", "secret")[0] == 0
    assert Path("secret").stat().st_mode & 0o777 == 0o600
    assert run(capsys, "key", "secret")[0] == 2
    parts = make.write(path, key=read_key("secret"))
    if not closed:
        path.write_bytes(b"".join(parts[:-1]))
    code, out = run(capsys, "verify", "run.audit", "--key", "secret")
    assert code == 0
    assert "every block has the MAC of this key" in out
    assert "it has MACs, which --key checks" in run(capsys, "verify", "run.audit")[1]
    make_key("other")
    code, out = run(capsys, "verify", "run.audit", "--key", "other")
    assert code == 1
    assert "block 1 was written without the key, or with another" in out


def test_who_has_a_later_key_cannot_change_earlier_blocks(path: Path) -> None:
    """What the process holds after three blocks makes block 4, and no MAC of 1, 2 and 3."""
    parts = make.write(path, key=KEY)
    file = Block.read(parts[1][: BLOCK.size]).file
    stolen = ForwardKey(KEY, file)
    for _ in range(3):
        stolen.advance()
    raw = [parts[0]]
    previous = Block.read(parts[1][: BLOCK.size]).previous
    for number, part in enumerate(parts[1:], 1):
        block = Block.read(part[: BLOCK.size])._replace(previous=previous)
        if number == 2:
            frames = [(b"RECS", make.records(40, size=1).tobytes())]
            forged, content = make.forged_block(frames, 2, previous, file, flags=block.flags)
        else:
            forged, content = block, part[BLOCK.size :]
        if number >= 2:
            forged = forged.sealed(stolen)
        if number >= 4:
            stolen.advance()
        previous = forged.hash
        raw.append(forged.packed() + content)
    path.write_bytes(b"".join(raw))
    assert verify(path).state == "closed"
    assert {(each.kind, each.block) for each in verify(path, key=KEY).findings} == {
        ("key", 2), ("key", 3),
    }  # fmt: skip


def test_blocks_that_are_missing_do_not_hide_a_wrong_key(path: Path) -> None:
    parts = make.write(path, key=KEY)
    path.write_bytes(b"".join([*parts[:2], *parts[3:]]))
    assert [each.kind for each in verify(path, key=KEY).findings] == ["removed"]
    assert {each.kind for each in verify(path, key=KEY[::-1]).findings} == {"removed", "key"}


def test_files_without_anything_to_check_by(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(make.form_1([make.batch(5)]))
    with pytest.raises(AuditError, match="byte 0: a file of form 1: its records are not hashed"):
        verify(path)
    make.write(path)
    (finding,) = verify(path, key=KEY).findings
    assert (finding.kind, finding.message) == (
        "key", "its header says that it was written without a key",
    )  # fmt: skip
    Path("short").write_text("abcdef\n")
    for words in (
        ["run.audit", "--key", "short"], ["absent"], [], ["run.audit", "--proof", "run.audit"],
        ["run.audit", "--head", "abc"], ["/dev/zero"],
    ):  # fmt: skip
        assert run(capsys, "verify", *words)[0] == 2


# ---- proofs ----


@pytest.mark.parametrize("sequence", [1, 16, 17, 40, 41, 65])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_record_is_proven(path: Path, sequence: int, key: bytes | None) -> None:
    make.write(path, key=key)
    proof = prove(path, sequence)
    Path("proof.json").write_bytes(proof.packed())
    path.unlink()
    proven = check(load("proof.json"), key=key)
    assert proven.record.sequence == sequence
    assert proven.record.subject == "te/system_u:system_r:client_t"
    assert (proven.record.tclass, proven.record.task_name) == ("mach_port", "client")
    assert proven.keyed == (key is not None)
    assert proven.head[0] == 5


def test_a_proof_as_it_is_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make.write(path)
    head = verify(path).head[1]
    code, out = run(capsys, "prove", "run.audit", "42", "--out", "one.json")
    assert code == 0
    assert f"it holds if block 5 has the hash {head}" in out
    code, out = run(capsys, "verify", "--proof", "one.json", "--head", head)
    assert code == 0
    assert out.splitlines()[0] == "one.json: holds"
    assert "task_name    client" in out
    assert f"block 5 has the hash {head}, as noted" in out
    code, out = run(capsys, "verify", "--proof", "one.json")
    assert (code, out.splitlines()[0]) == (0, "one.json: holds if the hash below is the file's")
    found = json.loads(run(capsys, "verify", "--proof", "one.json", "--json")[1])
    assert (found["holds"], found["record"]["sequence"], found["noted"]) == (True, 42, False)
    code, out = run(capsys, "verify", "--proof", "one.json", "--head", "00" * 32)
    assert code == 1
    assert "no block in it has the hash that was noted" in out
    code, out = run(capsys, "verify", "--proof", "one.json", "--head", "00" * 32, "--json")
    assert (code, json.loads(out)["holds"]) == (1, False)


def test_a_proof_may_end_at_an_earlier_hash(path: Path) -> None:
    parts = make.write(path)
    blocks = [Block.read(part[: BLOCK.size]) for part in parts[1:]]
    proof = prove(path, 3, head=blocks[2].hash.hex())
    assert len(proof.blocks) == 2
    assert check(proof, head=blocks[2].hash.hex()).head == (3, blocks[2].hash.hex())
    with pytest.raises(ProofError, match="no block from record 65 on has the hash"):
        prove(path, 65, head=blocks[2].hash.hex())


def test_records_that_there_are_not(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make.write(path)
    for sequence in ("66", "0", str(1 << 70)):
        assert run(capsys, "prove", "run.audit", sequence)[0] == 2
    assert not Path("proof.json").exists()
    make.write(path, (3,), append=True)
    with pytest.raises(ProofError, match="more than one record 2: say which block, 2 or 7"):
        prove(path, 2)
    assert check(prove(path, 2, block=7)).block == 7
    path.write_bytes(make.form_1([make.batch(5)]))
    with pytest.raises(AuditError, match="form 1"):
        prove(path, 2)


def test_nothing_is_proven_of_a_damaged_block(path: Path) -> None:
    parts = make.write(path)
    flip(path, len(parts[0]) + len(parts[1]) + parts[2].index(b"RECS") + 30)
    with pytest.raises(AuditError, match="block 2: records were changed"):
        prove(path, 3)


def test_every_bit_of_a_proof_matters(path: Path) -> None:
    """Whatever is changed in it, it does not hold, or shows what is there."""
    make.write(path, (3,))
    proof = prove(path, 2)
    head = verify(path).head[1]
    there = list(audit.read(path))
    raw = proof.packed()
    for at in range(0, len(raw), 5):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        Path("proof.json").write_bytes(changed)
        try:
            proven = check(load("proof.json"), head=head)
        except (NotProven, ProofError):
            continue
        assert proven.record in there
        assert (proven.block, proven.head, proven.noted) == (2, (3, head), True)


def test_a_proof_with_another_record_in_it(path: Path) -> None:
    make.write(path)
    proof, other = prove(path, 3), prove(path, 50)
    for wrong in (
        msgspec.structs.replace(proof, record=other.record),
        msgspec.structs.replace(proof, sequence=17),
        msgspec.structs.replace(proof, words=[*proof.words, other.words[0]]),
        msgspec.structs.replace(proof, blocks=other.blocks),
        msgspec.structs.replace(proof, blocks=[proof.blocks[0], *proof.blocks[2:]]),
        msgspec.structs.replace(proof, words=[proof.record]),
        msgspec.structs.replace(proof, record=proof.words[0]),
    ):
        with pytest.raises(NotProven):
            check(wrong)


def test_a_name_that_looks_like_a_record_proves_nothing(path: Path) -> None:
    """A task chooses its name: the frame with it is a leaf too, as long as two records."""
    fake = make.records(2, 7).tobytes()
    name = fake[12:].decode("latin-1").encode().ljust(196, b"\0")[:196]
    head = make.forged([(b"TASK", (1).to_bytes(4, "little") + name), (b"RECS", fake)])
    path.write_bytes(head)
    proof = prove(path, 8)
    with Path(path).open("rb") as file:
        reader = audit.Reader(file)
        (position,) = reader.blocks()
    content = bytes(position.content[:208])
    path_up = [bytes(position.content[position.block.frames + 32 :][:32])]
    forged = msgspec.structs.replace(proof, record=Leaf(0, content, path_up), words=[])
    with pytest.raises(NotProven, match="expected a leaf of records"):
        check(forged)


@pytest.mark.parametrize("tag", [b"LABL", b"TASK", b"CLAS", b"SERV", b"OPEN", b"SAMP", b"RECS"])
def test_a_number_that_spells_a_tag_is_proven(path: Path, tag: bytes) -> None:
    """The second leaf of a frame begins with it. What it is is shown by the first one."""
    spelt = int.from_bytes(tag, "little")
    with File(path) as file:
        file(make.batch(40, spelt - 16))
    proof = prove(path, spelt)
    Path("proof.json").write_bytes(proof.packed())
    assert check(load("proof.json")).record.sequence == spelt
    assert (proof.begin is None) == (tag == b"RECS")
    if proof.begin is not None:
        for begin in (None, proof.record, *proof.words):
            with pytest.raises(NotProven, match="expected a leaf of records"):
                check(msgspec.structs.replace(proof, begin=begin))
        wrong = msgspec.structs.replace(proof.begin, index=proof.begin.index + 1)
        with pytest.raises(NotProven, match="is not in block"):
            check(msgspec.structs.replace(proof, begin=wrong))


def test_what_is_no_proof(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make.write(path)
    good = msgspec.json.decode(prove(path, 3).packed())
    cases: list[Any] = [
        b"", b"[]", b"{}", b"[" * 99_999, b"\xff", good | {"form": "pympi audit proof 2"},
        good | {"blocks": []}, good | {"blocks": ["AAAA"]},
        good | {"header": "pympi audit 2\n{}\n"},
        good | {"header": "\ud800"}, good | {"more": 1}, good | {"sequence": -1},
    ]  # fmt: skip
    for case in cases:
        raw = case if isinstance(case, bytes) else json.dumps(case).encode()
        Path("proof.json").write_bytes(raw)
        assert run(capsys, "verify", "--proof", "proof.json")[0] in (1, 2)


def test_a_proof_from_far_away_takes_no_time(path: Path) -> None:
    make.write(path, (3,), key=KEY)
    proof = prove(path, 2)
    block = Block.read(proof.blocks[0])._replace(number=1 << 60).sealed(None)
    far = msgspec.structs.replace(proof, blocks=[block.packed()])
    with pytest.raises(NotProven, match="too far"):
        check(far, key=KEY)


def test_services_are_proven_too(path: Path) -> None:
    asked = make.records(1, operation=int(make.Operation.SERVICE), name=3)
    with File(path) as file:
        file(Batch(asked, make.LABELS, make.TASKS, {make.PORT.number: make.PORT}, {3: "printer"}))
    assert check(prove(path, 1)).record.service == "printer"
