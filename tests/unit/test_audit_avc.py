# SPDX-License-Identifier: BSD-2-Clause
"""AVC messages: word for word, unforgeable, and what SELinux's and audit's own tools read."""

import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi import AccessDenied, Kernel
from pympi.audit import AuditRecord, AVCFile, Memory, avc_line, avc_lines
from pympi.enums import ALL, AuditFlag, ObjectClass
from pympi.mig import Interface
from pympi.policy import Decision, Partition, PolicyModule
from pympi.policy.cil import compile_policy
from pympi.policy.te import TypeEnforcement

RECORD = AuditRecord(
    sequence=7, time=1700000000.1234, operation="send", subject="te/u:r:client_t",
    real_subject="te/u:r:client_t", object="te/u:r:port_t", peer="-", task=4242,
    task_name="client", name=0x1203, port=99, tclass="mach_port", asked=("send", "copy_send"),
    denied=("send",), reported=(), msgh_id=18960, size=5, result="MACH_SEND_INVALID_DEST",
    transfer=0, provenance=0, epoch=1, flags=AuditFlag(0), lost=0,
)  # fmt: skip
HEAD = "type=AVC msg=audit(1700000000.123:7): avc:  "
CONTEXTS = "scontext=u:r:client_t tcontext=u:r:port_t"
LONGEST_READ = 8970

FULL = tuple(f"r{index}" for index in range(31))
CLASSES = {
    "mi_printing": ObjectClass(16, "mi_printing", ("print_page", "cancel")),
    "mi_big": ObjectClass(17, "mi_big", FULL),
    "mi_big_2": ObjectClass(18, "mi_big_2", ("r31", "r32")),
    "mi_big_3": ObjectClass(25, "mi_big_3", ("own", "other")),
    "mi_lone_2": ObjectClass(30, "mi_lone_2", ("r31", "r32")),
    "mi_zero_0": ObjectClass(31, "mi_zero_0", ("a", "b")),
}


def made(**fields: Any) -> AuditRecord:
    return RECORD._replace(**fields)


# ---- the form ----


def test_the_form_word_for_word() -> None:
    record = made(denied=("send", "hold_send"))
    assert avc_line(record) == (
        "type=AVC msg=audit(1700000000.123:7): avc:  denied  { send hold_send } for  pid=4242 "
        'comm="client" port=0x1203 msgh_id=18960 scontext=u:r:client_t tcontext=u:r:port_t '
        "tclass=mach_port permissive=0"
    )


def test_a_task_has_neither_port_nor_message() -> None:
    record = made(
        operation="task", tclass="mach_task", denied=("terminate",), name=0, msgh_id=0,
    )  # fmt: skip
    assert avc_line(record) == (
        f'{HEAD}denied  {{ terminate }} for  pid=4242 comm="client" {CONTEXTS} tclass=mach_task '
        "permissive=0"
    )


def test_a_message_numbered_0_has_its_number() -> None:
    assert " msgh_id=0 scontext=" in avc_line(made(msgh_id=0))
    assert " msgh_id=-5 " in avc_line(made(msgh_id=-5))
    assert "msgh_id" not in avc_line(made(msgh_id=0, operation="relabel"))


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        (0.0, "0.000"),
        (2.5, "2.500"),
        (1700000000.0009, "1700000000.000"),
        (1700000000.001, "1700000000.001"),
        (1700000000.123, "1700000000.123"),
        (1699999999.999, "1699999999.999"),
        (59.9999, "59.999"),
    ],
)
def test_time(time: float, shown: str) -> None:
    assert f"audit({shown}:7):" in avc_line(made(time=time))


def test_what_is_only_reported_is_permissive() -> None:
    line = avc_line(made(denied=(), reported=("copy_send",)))
    assert "avc:  denied  { copy_send } for" in line
    assert line.endswith(" permissive=1")
    line = avc_line(made(flags=AuditFlag.PERMISSIVE, result="KERN_SUCCESS"))
    assert "avc:  denied  { send } for" in line
    assert line.endswith(" permissive=1")


def test_refused_and_reported_are_two_lines_of_one_event() -> None:
    refused, reported = avc_line(made(reported=("copy_send",))).split("\n")
    assert refused.startswith(f"{HEAD}denied  {{ send }} ")
    assert refused.endswith(" permissive=0")
    assert reported.startswith(f"{HEAD}denied  {{ copy_send }} ")
    assert reported.endswith(" permissive=1")
    assert avc_line(made(reported=("send",))).count("\n") == 0


def test_a_grant_says_so_and_nothing_of_permissive() -> None:
    assert avc_line(made(denied=(), result="KERN_SUCCESS")) == (
        f'{HEAD}granted  {{ send copy_send }} for  pid=4242 comm="client" port=0x1203 '
        f"msgh_id=18960 {CONTEXTS} tclass=mach_port"
    )


def test_recv_is_asked_of_the_sender() -> None:
    record = made(
        operation="receive", asked=("recv", "use_recv"), denied=(), peer="te/u:r:sender_t",
        flags=AuditFlag.RECEIVE,
    )  # fmt: skip
    port, sender = avc_line(record).split("\n")
    assert "{ use_recv }" in port
    assert "tcontext=u:r:port_t" in port
    assert "{ recv }" in sender
    assert "tcontext=u:r:sender_t" in sender
    routine = made(operation="method", tclass="mi_x", asked=("recv",), denied=("recv",))
    assert "tcontext=u:r:port_t" in avc_line(routine)


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": "loss", "flags": AuditFlag.LOSS, "lost": 5, "result": ""},
        {"flags": AuditFlag.ERROR, "result": "MACH_SEND_INVALID_DEST"},
        {"operation": "guard", "flags": AuditFlag.GUARD},
    ],
)
def test_what_is_no_decision_has_no_line(fields: dict[str, Any]) -> None:
    record = made(asked=(), denied=(), tclass="", **fields)
    assert avc_line(record) == ""
    assert list(avc_lines([record, RECORD, record])) == [avc_line(RECORD)]


# ---- methods ----


@pytest.mark.parametrize(
    ("tclass", "routine", "index"),
    [
        ("mi_printing", "print_page", "0x0"),
        ("mi_printing", "cancel", "0x1"),
        ("mi_big", "r30", "0x1e"),
        ("mi_big_2", "r31", "0x1f"),
        ("mi_big_2", "r32", "0x20"),
        ("mi_lone_2", "r32", "0x20"),
        ("mi_big_3", "other", "0x3f"),
        ("mi_zero_0", "b", "0x1"),
    ],
)
def test_a_method_has_its_name_and_its_index(tclass: str, routine: str, index: str) -> None:
    record = made(operation="method", tclass=tclass, asked=(routine,), denied=(routine,))
    line = avc_line(record, classes=CLASSES)
    assert f"denied  {{ {routine} }} for" in line
    assert f" msgh_id=18960 ioctlcmd={index} scontext=" in line
    assert f" tclass={tclass} " in line
    assert "ioctlcmd" not in avc_line(record)


def test_a_number_that_is_no_routine() -> None:
    record = made(operation="method", tclass="mi_printing", asked=(), denied=(), name=5)
    for classes in (CLASSES, {"mi_printing": ObjectClass(16, "mi_printing", (*FULL, "ioctl"))}):
        line = avc_line(record, classes=classes)
        assert "denied  { ioctl } for" in line
        assert "ioctlcmd" not in line
        assert line.endswith("tclass=mi_printing permissive=0")


# ---- contexts ----


@pytest.mark.parametrize(
    ("label", "context"),
    [
        ("te/u:r:t", "u:r:t"),
        (r"mls/low,te/u:r:t:s0-s1:c0.c3\,c7", "u:r:t:s0-s1:c0.c3,c7"),
        ("-", "system_u:object_r:unlabeled_t"),
        ("mls/low", "system_u:object_r:unlabeled_t"),
        ("sid:9", "system_u:object_r:unlabeled_t"),
        ("te/u:r:t granted", "753A723A74206772616E746564"),
        ("te/a=b", "613D62"),
    ],
)
def test_contexts_are_those_of_te(label: str, context: str) -> None:
    assert f"scontext={context} tcontext=u:r:port_t " in avc_line(made(subject=label))
    assert f"tcontext={context} tclass=" in avc_line(made(object=label))


def test_what_is_unlabeled_may_be_said() -> None:
    line = avc_line(made(subject="-", object="-"), unlabeled="a:b:c")
    assert "scontext=a:b:c tcontext=a:b:c" in line


def test_labels_follow_where_there_is_more_to_them() -> None:
    line = avc_line(made(subject="mls/low,te/u:r:client_t"))
    assert f' slabel="mls/low,te/u:r:client_t" tlabel="te/u:r:port_t" {CONTEXTS}' in line
    assert "label=" not in avc_line(made(subject="-"))
    assert ' slabel="-" tlabel="mls/5(low-high)" ' in avc_line(
        made(subject="-", object="mls/5(low-high)")
    )
    assert ' slabel="sid:9" ' in avc_line(made(subject="sid:9"))


# ---- hostile names ----

TEXT = r"(?:\"[^\"\s=]+\"|(?:[0-9A-F]{2})+)"
LINE = re.compile(
    r"type=AVC msg=audit\([0-9]+\.[0-9]{3}:[0-9]+\): avc:  (?:denied|granted)  "
    r"\{ [\w.:,+-]+(?: [\w.:,+-]+)* \} for  pid=[0-9]+ "
    rf"comm=(?P<comm>{TEXT})"
    r"(?: port=0x[0-9a-f]+)?(?: msgh_id=-?[0-9]+)?(?: ioctlcmd=0x[0-9a-f]+)?"
    rf"(?: slabel={TEXT} tlabel={TEXT})?"
    r" scontext=[\w.:,+-]+ tcontext=[\w.:,+-]+ tclass=[\w.:,+-]+(?: permissive=[01])?",
    re.ASCII,
)
FORGED = "x permissive=1\ntype=AVC msg=audit(1.000:1): avc:  denied  { a } for  pid=1 comm="
NASTY = st.text(max_size=40) | st.sampled_from(
    [FORGED, 'a"b', "a b", "a=b", "\0", "\x7f", "\x85", "\u2028", "{", "}", "granted", "\ud800"]
)


@pytest.mark.parametrize(
    ("name", "comm"),
    [
        ("client", '"client"'),
        ("a b", "612062"),
        ('a"b', "612262"),
        ("a\nb", "610A62"),
        ("a=b", "613D62"),
        ("é", "C3A9"),
        ("\udcff", "FF"),
        ("\x7f", "7F"),
        ("{}", '"{}"'),
        ("41", '"41"'),
        ("", '"?"'),
        ("x" * 1023, '"' + "x" * 1023 + '"'),
        ("\n" * 1023, "0A" * 1023),
    ],
)
def test_comm_as_the_kernels_audit_writes_it(name: str, comm: str) -> None:
    assert f" comm={comm} port=" in avc_line(made(task_name=name))


@given(NASTY, NASTY, NASTY, NASTY, st.lists(NASTY.filter(bool), min_size=1, max_size=3))
def test_nobody_forges_a_line(
    name: str, subject: str, target: str, tclass: str, permissions: list[str]
) -> None:
    record = made(
        task_name=name, subject=subject, object=f"te/{target}", tclass=tclass or "c",
        asked=tuple(permissions), denied=tuple(permissions),
    )  # fmt: skip
    line = avc_line(record)
    match = LINE.fullmatch(line)
    assert match, line
    comm = match["comm"]
    told = comm.strip('"').encode() if comm.startswith('"') else bytes.fromhex(comm)
    with suppress(UnicodeEncodeError):
        assert told == (name or "?").encode()


def test_lines_stay_below_what_tools_read() -> None:
    """A longer one would be read as two, and the second begin wherever somebody wants."""
    long = "\n" * 5000
    record = made(
        task_name=long, subject=f"te/{long},mls/{long}", object=f"te/{'u' * 2048},mls/{long}",
        tclass=f"mi_{long}", denied=(long,), operation="method",
    )  # fmt: skip
    line = avc_line(record)
    assert LINE.fullmatch(line)
    assert len(line) < LONGEST_READ


# ---- from a kernel ----

POLICY = """\
(handleunknown deny)
(mls false)
(class mach_port (send recv copy_send move_send hold_send))
(class mi_printing (print_page cancel ioctl))
(classorder (mach_port mi_printing))
(sid kernel)
(sidorder (kernel))
(user u)
(role r)
(userrole u r)
(sensitivity s0)
(sensitivityorder (s0))
(userlevel u (s0))
(userrange u ((s0) (s0)))
(type client_t)
(type port_t)
(type open_t)
(roletype r client_t)
(roletype r port_t)
(roletype r open_t)
(sidcontext kernel (u r port_t ((s0) (s0))))
(boolean allow_debug false)
(booleanif allow_debug (true (allow client_t open_t (mach_port (copy_send)))))
(allow client_t open_t (mach_port (hold_send send)))
"""

# What the stand-in below refuses, by (source type, target type).
REFUSED = {
    ("client_t", "port_t"): {"mach_port": "send"},
    ("client_t", "open_t"): {"mach_port": "copy_send", "mi_printing": "cancel"},
    ("port_t", "client_t"): {"mach_port": "recv"},
}


class Types(PolicyModule):
    """Contexts and a table, in the place of `te`; grants of move_send are to be recorded."""

    name = "te"

    def decide(self, source: str, target: str, tclass: ObjectClass) -> Decision:
        table = REFUSED.get((source.split(":")[2], target.split(":")[2]), {})
        refused = tclass.mask(table.get(tclass.name, ""))
        recorded = tclass.mask("move_send") if tclass.name == "mach_port" else 0
        return Decision(allowed=~refused & ALL, auditallow=recorded)


def run(kernel: Kernel) -> None:
    """Four refusals, and one grant that is recorded."""
    server = kernel.create_task("printd", label="te/u:r:port_t")
    client = kernel.create_task("my client", label="te/u:r:client_t")
    opened = server.allocate_port("te/u:r:open_t")
    opened.serve(Interface("printing", 1200, ["print_page", "cancel"]))
    closed, right = server.allocate_port().make_send(client), opened.make_send(client)
    refused: list[Callable[[], Any]] = [
        lambda: closed.send(b"", msgh_id=18960),
        lambda: right.send(b"", msgh_id=1200),
        lambda: right.use_up(b"", msgh_id=1201),
    ]
    for attempt in refused:
        with pytest.raises(AccessDenied):
            attempt()
    right.use_up(b"", msgh_id=1200)
    with pytest.raises(AccessDenied):
        opened.receive(timeout=0)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avc") / "avc.log"
    with Kernel(policies=[Types()], clock="exact") as kernel:
        kernel.audit.attach(AVCFile(path))
        run(kernel)
    return path


def test_the_file_of_a_kernel(log: Path) -> None:
    lines = log.read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    told = [re.sub(r"^.*?avc:  |pid=[0-9]+ |port=0x[0-9a-f]+ ", "", line) for line in lines]
    to_port, to_open, to_client = (
        f"scontext=u:r:{source} tcontext=u:r:{target} tclass="
        for source, target in (
            ("client_t", "port_t"), ("client_t", "open_t"), ("port_t", "client_t")
        )
    )  # fmt: skip
    client, no = f"for  comm={b'my client'.hex().upper()}", "permissive=0"
    assert told == [
        f"denied  {{ send }} {client} msgh_id=18960 {to_port}mach_port {no}",
        f"denied  {{ copy_send }} {client} msgh_id=1200 {to_open}mach_port {no}",
        f"denied  {{ cancel }} {client} msgh_id=1201 ioctlcmd=0x1 {to_open}mi_printing {no}",
        f"granted  {{ send move_send }} {client} msgh_id=1200 {to_open}mach_port",
        f'denied  {{ recv }} for  comm="printd" msgh_id=1200 {to_client}mach_port {no}',
    ]


def test_ports_and_tasks_are_those_of_the_record(tmp_path: Path) -> None:
    memory = Memory()
    with Kernel(policies=[Types()]) as kernel:
        kernel.audit.attach(memory)
        kernel.audit.attach(AVCFile(tmp_path / "log"))
        run(kernel)
    records, lines = list(memory.records), (tmp_path / "log").read_text().splitlines()
    assert len(records) == len(lines) == 5
    for record, line in zip(records, lines, strict=True):
        assert f":{record.sequence}): " in line
        assert f" pid={record.task} " in line
        assert f" port={record.name:#x} " in line


def test_a_permissive_kernel_writes_permissive_lines(tmp_path: Path) -> None:
    with Kernel(policies=[Types()]) as kernel:
        kernel.policies.permissive = True
        kernel.audit.attach(AVCFile(tmp_path / "log"))
        server = kernel.create_task("printd", label="te/u:r:port_t")
        client = kernel.create_task("client", label="te/u:r:client_t")
        server.allocate_port().make_send(client).send(b"")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "denied  { send } for" in line
    assert line.endswith(" permissive=1")


def test_a_number_unknown_to_an_interface(tmp_path: Path) -> None:
    with Kernel(policies=[Types()]) as kernel:
        kernel.audit.attach(AVCFile(tmp_path / "log"))
        server = kernel.create_task("printd", label="te/u:r:port_t")
        port = server.allocate_port("te/u:r:port_t")
        port.serve(Interface("printing", 1200, ["print_page"]))
        with pytest.raises(AccessDenied):
            port.make_send(server).send(b"", msgh_id=77)
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "denied  { ioctl } for" in line
    assert " msgh_id=77 scontext=" in line


def test_lines_of_a_batch_know_its_classes() -> None:
    with Kernel(policies=[Types()]) as kernel:
        run(kernel)
        batch = kernel.audit.batch(kernel.audit.drain())
        lines = list(avc_lines(batch))
    assert [line for line in lines if " ioctlcmd=0x1 " in line] == [lines[2]]


def test_a_sink_refuses_nothing_it_cannot_keep(tmp_path: Path) -> None:
    sink = AVCFile(tmp_path / "log", when_full="block")
    with Kernel(policies=[Types()], audit_records=64) as kernel:
        kernel.audit.attach(sink)
        assert kernel.audit.when_full == "block"
        client = kernel.create_task("client", label="te/u:r:client_t")
        port = kernel.create_task("printd", label="te/u:r:port_t").allocate_port()
        right = port.make_send(client)
        for _ in range(500):
            with pytest.raises(AccessDenied):
                right.send(b"")
    assert len((tmp_path / "log").read_text().splitlines()) == 500


# ---- the tools ----


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def output(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [tool(name), *map(str, arguments)], capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("policy")
    (directory / "policy.cil").write_text(POLICY)
    output(
        "secilc", "-o", directory / "policy", "-f", directory / "contexts", directory / "policy.cil"
    )
    return directory / "policy"


def test_audit2allow_writes_the_rules(log: Path, policy: Path) -> None:
    told = output("audit2allow", "-p", policy, "-i", log)
    rules = [line for line in told.splitlines() if line.startswith("allow ")]
    assert sorted(rules) == [
        "allow client_t open_t:mach_port copy_send;",
        "allow client_t open_t:mi_printing cancel;",
        "allow client_t port_t:mach_port send;",
        "allow port_t client_t:mach_port recv;",
    ]
    assert "can be allowed using the boolean 'allow_debug'" in told


def test_audit2allow_writes_allowxperm(log: Path, policy: Path) -> None:
    told = output("audit2allow", "-x", "-p", policy, "-i", log)
    rules = [line for line in told.splitlines() if line.startswith("allowxperm ")]
    assert rules == ["allowxperm client_t open_t:mi_printing ioctl 0x1;"]


def test_audit2why_says_why(log: Path, policy: Path) -> None:
    told = output("audit2why", "-p", policy, "-i", log)
    reasons = dict(zip(log.read_text().splitlines(), told.split("type=AVC ")[1:], strict=True))
    for line, reason in reasons.items():
        assert line.removeprefix("type=AVC ") in reason
        if "{ copy_send }" in line:
            assert "boolean allow_debug was set incorrectly" in reason
        elif "denied" in line:
            assert "Missing type enforcement (TE) allow rule" in reason


def test_ausearch_finds_each_of_them(log: Path) -> None:
    assert output("ausearch", "-if", log, "-m", "AVC", "--raw") == log.read_text()
    told = output("ausearch", "-if", log, "-m", "AVC", "-i")
    assert told.count("comm=my client ") == 4
    assert "avc:  denied  { recv } for" in told
    lines = log.read_text().splitlines()
    for options, found in (
        (("-c", "my client"), lines[:4]),
        (("-c", "printd"), lines[4:]),
        (("-su", "u:r:client_t"), lines[:4]),
        (("-o", "u:r:open_t"), lines[1:4]),
    ):
        raw = output("ausearch", "-if", log, *options, "--raw").splitlines()
        assert raw == found, options


def test_aureport_counts_each_of_them(log: Path) -> None:
    rows = [
        line.split()[3:] for line in output("aureport", "-if", log, "--avc").splitlines()
        if re.match(r"[0-9]+\. ", line)
    ]  # fmt: skip
    assert len(rows) == 5
    assert [row[-2] for row in rows] == ["denied", "denied", "denied", "granted", "denied"]
    assert rows[0][:-1] == [
        "my", "client", "u:r:client_t", "0", "mach_port", "send", "u:r:port_t", "denied"
    ]  # fmt: skip


def test_hostile_names_are_one_event_to_the_tools(tmp_path: Path, policy: Path) -> None:
    names = [FORGED, "scontext=u:r:open_t", '" permissive=1', "", "denied", "a\x00b", "é", "{ x }"]
    records = [made(sequence=n, task_name=name) for n, name in enumerate(names, 1)]
    path = tmp_path / "log"
    path.write_text("".join(line + "\n" for line in avc_lines(records)))
    assert output("ausearch", "-if", path, "-se", "client_t", "--raw") == path.read_text()
    report = output("aureport", "-if", path, "--avc")
    assert len(re.findall(r"^[0-9]+\. ", report, re.MULTILINE)) == len(names)
    told = output("audit2allow", "-p", policy, "-i", path)
    rules = [line for line in told.splitlines() if line.startswith("allow ")]
    assert rules == ["allow client_t port_t:mach_port send;"]


# ---- the same from `te` itself ----

COURIER = """\
(type client_t)
(type port_t)
(roletype system_r client_t)
(roletype object_r client_t)
(roletype object_r port_t)
(roletype system_r port_t)
(class mi_printing (print_page cancel ioctl))
(classorder (mi_printing))
(boolean allow_debug false)
(booleanif allow_debug (true (allow client_t port_t (mi_printing (cancel)))))
(allow port_t port_t (mach_port (make_send relabelfrom relabelto set_attributes)))
(allow client_t port_t (mach_port (hold_send send)))
(auditallow client_t port_t (mach_port (move_send)))
(allow client_t port_t (mach_port (move_send)))
(allow client_t port_t (mi_printing (print_page)))
(dontaudit client_t port_t (mach_port (carry_memory)))
"""


def test_what_te_refuses_audit2allow_allows(tmp_path: Path) -> None:
    """Its contexts, those of what has none, and its grants by auditallow."""
    te = TypeEnforcement.from_text(COURIER)
    with Kernel(policies=[te]) as kernel:
        kernel.audit.attach(AVCFile(tmp_path / "log"))
        server = kernel.create_task("printd", label="te/system_u:system_r:port_t")
        client = kernel.create_task("client", label="te/system_u:system_r:client_t")
        port = server.allocate_port()
        port.serve(Interface("printing", 1200, ["print_page", "cancel"]))
        right = port.make_send(client)
        right.use_up(b"", msgh_id=1200)
        for attempt in (
            lambda: port.make_send(client).use_up(b"", msgh_id=1201),
            lambda: port.make_send(client).send(b"", msgh_id=1200),
            lambda: port.make_send(kernel.create_task("stranger")),
            lambda: port.receive(timeout=0),
        ):
            with pytest.raises(AccessDenied):
                attempt()
    source = tmp_path / "policy.cil"
    source.write_text(compile_policy([("courier.cil", COURIER)]).text)
    output("secilc", "-o", tmp_path / "policy", "-f", tmp_path / "contexts", source)
    told = output("audit2allow", "-p", tmp_path / "policy", "-i", tmp_path / "log")
    rules = [line for line in told.splitlines() if line.startswith("allow ")]
    assert sorted(rules) == [
        "allow client_t port_t:mach_port copy_send;",
        "allow client_t port_t:mi_printing cancel;",
        "allow port_t self:mach_port use_recv;",
        "allow unlabeled_t port_t:mach_port hold_send;",
    ]
    assert "can be allowed using the boolean 'allow_debug'" in told
    assert "granted  { send move_send }" in (tmp_path / "log").read_text()


def test_who_asks_from_outside_has_no_name_in_a_space() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        kernel.check_peer("user 7, process 42", "partition/a", "partition/b", "kernel", "inspect")
        [line] = avc_lines(kernel.audit.batch(kernel.audit.drain()))
    comm = b"user 7, process 42".hex().upper()
    assert f" for  pid=0 comm={comm} slabel=" in line
