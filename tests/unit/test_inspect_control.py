# SPDX-License-Identifier: BSD-2-Clause
"""The control socket: what is answered, to whom, and that it goes with its kernel."""

import gc
import json
import os
import socket
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import output, program

from pympi import InspectError, Kernel, LabelError, PolicyError
from pympi.bootstrap import sentence
from pympi.enums import ALL
from pympi.inspect import Connection, Context, Limits, Service
from pympi.inspect.protocol import LINE_LARGEST, OPERATIONS
from pympi.policy import Budget, Decision, Partition, PolicyModule, Rules

UID = os.geteuid()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel
        kernel.verify()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "of its own" / "control"


class Raw:
    """A peer that says what it likes."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, *lines: str) -> dict:
        self.socket.sendall("".join(line + "\n" for line in lines).encode())
        return self.next()

    def next(self) -> dict:
        return json.loads(self.file.readline())


# ---- what is answered ----


def test_what_a_snapshot_says_here_and_there(kernel: Kernel, path: Path) -> None:
    server, client = kernel.create_task("server"), kernel.create_task("client")
    for _ in range(600):  # more rows than a line holds
        server.allocate_port().make_send(client)
    kernel.bootstrap_contexts = lambda: [
        Context(1, services=(Service("com.example.a"), Service("com.example.b", task=server.id)))
    ]
    kernel.inspect_at(path)
    here = kernel.snapshot()
    with Connection(path) as connection:
        there = connection.snapshot()
        assert (there.tasks, there.ports, there.rights) == (here.tasks, here.ports, here.rights)
        assert (there.begin.sequence, there.policy, there.bootstrap) == (
            here.begin.sequence,
            here.policy,
            here.bootstrap,
        )
        assert connection.tasks() == here.tasks
        assert connection.ports(server.id) == here.ports
        assert connection.rights(client.id) == here.rights_of(client.id)
        assert not connection.ports(client.id)
        assert connection.stats()["ports"] == 600
        assert connection.avcstat()["epoch"] == connection.policy().epoch == kernel.policies.epoch
        assert connection.ping() > 0
        assert connection.welcome.operations == OPERATIONS
        assert connection.welcome.pid == os.getpid()


def test_lines_as_they_are_documented(kernel: Kernel, path: Path) -> None:
    kernel.create_task("a\nb").allocate_port()
    kernel.inspect_at(path)
    with Raw(path) as peer:
        assert peer.ask('{"op":"hello","id":7,"version":1}')["result"]["version"] == 1
        rows = peer.ask('{"op":"tasks","id":8}')
        assert (rows["id"], rows["table"], rows["rows"][0]["name"]) == (8, "tasks", "a\nb")
        assert peer.next() == {"id": 8, "result": {"rows": 1}}
        assert peer.ask('{"op":"watch","id":9}') == {"id": 9, "table": "records", "rows": []}


def test_requests_one_after_the_other(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path)
    with Raw(path) as peer:
        asked = ['{"op":"hello"}', *(f'{{"op":"ping","id":{n}}}' for n in range(1, 200))]
        assert [peer.ask(*asked)["id"], *(peer.next()["id"] for _ in asked[1:])] == list(range(200))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ('{"op":"hello","version":2}', "protocol 2; this server speaks 1"),
        ('{"op":"dance"}', "dance"),
        ('{"op":"tasks","task":-1}', "$.task"),
        ('{"op":"tasks","task":"x"}', "$.task"),
        ('{"op":"tasks","more":1}', "more"),
        ("[]", "object"),
        ("", "truncated"),
        ("\x00\xff\xfe", "malformed"),
        ('{"op":"ping","id":-1}', "$.id"),
        ("[" * 4000, ""),
    ],
)
def test_bad_requests_are_told_why(kernel: Kernel, path: Path, request_: str, why: str) -> None:
    kernel.inspect_at(path)
    with Raw(path) as peer:
        peer.ask('{"op":"hello"}')
        error = peer.ask(request_)["error"]
        assert error["code"] in ("bad request", "not supported")
        assert why in error["message"]
        assert "result" in peer.ask('{"op":"ping"}')


def test_hello_comes_first(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path)
    with Raw(path) as peer:
        assert "hello" in peer.ask('{"op":"stats"}')["error"]["message"]
        assert peer.file.read() == b""


def test_a_request_of_the_largest_size(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path)
    hello = '{"op":"hello"}'
    with Raw(path) as peer:
        assert "result" in peer.ask(hello + " " * (LINE_LARGEST - 1 - len(hello)))
        assert "at most" in peer.ask(hello + " " * (LINE_LARGEST - len(hello)))["error"]["message"]


# ---- who may ----


class Eyes(PolicyModule):
    """Decides by the class and the labels: what "blind" may not, and what nobody may see."""

    name = "eyes"
    refused: set[tuple[str, str, str]] = set()

    def decide(self, source, target, tclass) -> Decision:
        allowed = ALL
        for who, what, permission in self.refused:
            if who == source and what in (target, tclass.name) and permission in tclass.permissions:
                allowed &= ~tclass.mask(permission)
        return Decision(allowed=allowed)


def eyes(*refused: tuple[str, str, str]) -> Eyes:
    module = Eyes()
    module.refused = set(refused)
    return module


def test_who_may_not_inspect_is_told_nothing(path: Path) -> None:
    with Kernel(policies=[eyes(("blind", "kernel", "inspect"))]) as kernel:
        kernel.create_task("secret", "eyes/x")
        kernel.inspect_at(path, label="eyes/blind")
        with Connection(path) as connection:
            assert connection.welcome.label == "eyes/blind"
            for ask in ("snapshot", "tasks", "ports", "rights", "stats", "avcstat", "policy"):
                with pytest.raises(InspectError, match="no inspect on kernel") as caught:
                    getattr(connection, ask)()
                assert caught.value.code == "denied"


def test_what_may_not_be_seen_looks_absent(path: Path, tmp_path: Path) -> None:
    module = eyes(
        ("user", "secret", "observe"),
        ("user", "secret", "get_attributes"),
        ("user", "secret", "list"),
    )
    with Kernel(policies=[module]) as kernel:
        spy = kernel.create_task("spy", "eyes/secret")
        clerk = kernel.create_task("clerk", "eyes/open", parent=spy)
        hidden, shown = spy.allocate_port(), spy.allocate_port("eyes/open")
        hidden_name = hidden.make_send(clerk).name
        shown.make_send(clerk)
        kernel.bootstrap_contexts = lambda: [
            Context(1, label="eyes/secret"),
            Context(
                2, 1, "eyes/open", hidden.port_id,
                (Service("a", label="eyes/secret"),
                 Service("b", "spy", label="eyes/open", port=hidden.port_id, task=spy.id)),
            ),
        ]  # fmt: skip
        kernel.inspect_at(path, label="eyes/user", kernel_label="eyes/open")
        with Connection(path) as connection:
            seen = connection.snapshot()
        assert [task.name for task in seen.tasks] == ["clerk"]
        assert seen.tasks[0].parent == 0
        (port,) = seen.ports
        assert port.id == shown.port_id
        assert (port.receiver, port.receiver_name, port.maker, port.owner) == (0, 0, 0, "")
        (right,) = seen.rights
        assert (right.task, right.object) == (clerk.id, port.id)
        assert hidden_name not in [right.name for right in seen.rights]
        assert seen.bootstrap == (
            Context(2, 0, "eyes/open", 0, (Service("b", label="eyes/open"),)),
        )
        assert b"spy" not in (seen.save(tmp_path / "seen") or (tmp_path / "seen").read_bytes())


def test_labels_by_user(path: Path) -> None:
    with Kernel(policies=[Partition()]) as kernel:
        kernel.inspect_at(path, label={UID: "partition/mine", UID + 1: "partition/other"})
        with Connection(path) as connection:
            assert connection.welcome.label == "partition/mine"
        kernel.inspect_at(path.with_name("b"), label=lambda uid: f"partition/{uid}")
        with Connection(path.with_name("b")) as connection:
            assert connection.welcome.label == f"partition/{UID}"
        kernel.inspect_at(path.with_name("c"), label={UID + 1: "partition/other"})
        with pytest.raises(InspectError, match="no label here"):
            Connection(path.with_name("c"))
        with pytest.raises(LabelError):
            kernel.inspect_at(path.with_name("d"), label="nonsense/x")
        assert not path.with_name("d").exists()


LOOK_AS = """
    import os, sys
    from pympi.inspect import Connection
    os.setgroups([])
    os.setresgid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
    os.setresuid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
    with Connection(sys.argv[2]) as connection:
        print(connection.welcome.label, *[task.name for task in connection.tasks()])
"""


@pytest.mark.skipif(UID != 0, reason="only root can be another user")
def test_users_are_told_apart() -> None:
    labels = {1000: "rules/user", 1001: "rules/secret", 0: "rules/root"}
    rules = "allow * * kernel { inspect }; allow root * mach_task { observe };"
    for who, whom in (("user", "user"), ("secret", "user"), ("secret", "secret")):
        rules += f"allow {who} {whom} mach_task {{ observe }};"
    with tempfile.TemporaryDirectory() as directory, Kernel(policies=[Rules.from_text(rules)]) as k:
        Path(directory).chmod(0o711)
        for name in ("user", "secret", "root"):
            k.create_task(name, f"rules/{name}")
        path = k.inspect_at(f"{directory}/run/c", label=labels, allow={*labels, 1002}).path
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o666, 0o711)
        seen = [output(LOOK_AS, str(uid), str(path)) for uid in labels]
        told = [program(LOOK_AS, uid, str(path)).stderr for uid in ("1002", "1003")]
    assert seen == [["rules/user user"], ["rules/secret user secret"],
                    ["rules/root user secret root"]]  # fmt: skip
    assert "user 1002 has no label here" in told[0]
    assert "user 1003 may not look at this kernel" in told[1]


# ---- what is recorded ----


def trail(kernel: Kernel) -> list[str]:
    """What the audit trail says, without times."""
    records = kernel.audit.batch(kernel.audit.drain())
    return [sentence(record, kernel).partition(" ")[2] for record in records]


def test_refusals_are_recorded_with_who_it_was(path: Path) -> None:
    me = f"user {UID}, process {os.getpid()} (eyes/guest)"
    module = eyes(*(("guest", "kernel", name) for name in ("inspect", "reload_policy")))
    with Kernel(policies=[module]) as kernel:
        kernel.inspect_at(path, label="eyes/guest", kernel_label="eyes/system")
        with Connection(path) as connection:
            for ask in (connection.tasks, connection.reload, lambda: next(connection.watch())):
                with pytest.raises(InspectError):
                    ask()
        assert trail(kernel) == [
            f"{me} {asked} on the kernel (eyes/system): refused by eyes"
            for asked in ("inspect", "reload_policy", "inspect")
        ]


def test_what_is_granted_is_recorded_where_it_is_selected(kernel: Kernel, path: Path) -> None:
    kernel.audit.select("all", classes="kernel")
    kernel.inspect_at(path)
    with Connection(path) as connection:
        connection.stats()
    me = f"user {UID}, process {os.getpid()} (-)"
    assert trail(kernel) == [f"{me} inspect on the kernel: granted"]


# ---- what may be changed ----


class Reloaded(Eyes):
    times, broken = 0, False

    def reload(self) -> None:
        if self.broken:
            raise PolicyError("line 3 is no rule")
        self.times += 1


def test_reload_where_it_is_allowed(path: Path) -> None:
    module = Reloaded()
    with Kernel(policies=[module]) as kernel:
        kernel.inspect_at(path, label="eyes/admin", read_only=False)
        epoch = kernel.policies.epoch
        with Connection(path) as connection:
            assert connection.reload("eyes").epoch == kernel.policies.epoch > epoch
            assert connection.reload().modules[0].name == "eyes"
            assert module.times == 2
            module.broken = True
            with pytest.raises(InspectError, match="as it was: line 3 is no rule"):
                connection.reload()
            with pytest.raises(InspectError, match="no policy module 'x'"):
                connection.reload("x")
            module.refused = {("admin", "kernel", "reload_policy")}
            kernel.policies.renew()
            with pytest.raises(InspectError, match="no reload_policy on kernel"):
                connection.reload()
            assert connection.snapshot(consistent=True).stopped_seconds > 0


def test_nothing_is_changed_unless_the_embedder_says_so(path: Path) -> None:
    module = Reloaded()
    with Kernel(policies=[module]) as kernel:
        kernel.inspect_at(path, label="eyes/admin")
        with Connection(path) as connection:
            for ask in (connection.reload, lambda: connection.snapshot(consistent=True)):
                with pytest.raises(InspectError) as caught:
                    ask()
                assert caught.value.code == "read only"
        assert module.times == 0


# ---- another policy ----

HELLO = '{"op":"hello"}'

GUEST, ADMIN = "rules/guest", "rules/admin"
RULES = "allow admin * kernel { inspect reload_policy };\n"
MORE = RULES + "allow guest guest kernel { inspect };\n"


@pytest.fixture
def ruled(path: Path) -> Iterator[Kernel]:
    rules = Rules.from_text(RULES, budget=Budget(bytes=200))
    with Kernel(policies=[rules]) as kernel:
        kernel.inspect_at(path, label=ADMIN, read_only=False, limits=Limits(stall=1.0))
        yield kernel
        kernel.verify()


def may_look(kernel: Kernel) -> bool:
    return bool(kernel.access(GUEST, GUEST, "kernel", "inspect"))


def test_another_policy_is_put_in_force(ruled: Kernel, path: Path) -> None:
    ruled.policies.set_permissive("rules")
    with Connection(path) as connection:
        policy = connection.reload("rules", [("new.rules", MORE.encode())])
        assert (policy.modules[0].permissive, ruled.policies.epoch) == (True, policy.epoch)
        ruled.policies.set_permissive("rules", False)
        assert may_look(ruled)
        connection.reload(texts=[("old.rules", RULES.encode())])
        assert not may_look(ruled)
        assert len(connection.tasks()) == 0  # it goes on being asked


def test_a_policy_on_trial(ruled: Kernel, path: Path) -> None:
    with Connection(path) as connection:
        policy = connection.reload(texts=[("new.rules", MORE.encode())], shadow=True)
        assert policy.modules[0].shadow == 0
        assert not may_look(ruled)
        assert connection.reload(drop=True).modules[0].shadow is None
        with pytest.raises(InspectError, match="has no shadow"):
            connection.reload(drop=True)


@pytest.mark.parametrize(
    ("text", "place"),
    [(b"allow guest;", ("new.rules", 1, 12)), (b"# \xff", ("new.rules", 1, 3)),
     (RULES.encode() * 9, ("", 0, 0)), (b"\xef\xbb\xbf", ("new.rules", 1, 1))],
)  # fmt: skip
def test_what_is_no_policy_changes_nothing(
    ruled: Kernel, path: Path, text: bytes, place: tuple[str, int, int]
) -> None:
    module, epoch = ruled.policies["rules"], ruled.policies.epoch
    with Connection(path) as connection:
        with pytest.raises(InspectError, match="the policy is as it was: ") as caught:
            connection.reload(texts=[("new.rules", text)])
        assert (caught.value.file, caught.value.line, caught.value.column) == place
        connection.ping()
    assert (ruled.policies["rules"], ruled.policies.epoch) == (module, epoch)


@pytest.mark.parametrize(
    ("read_only", "label", "code"), [(True, ADMIN, "read only"), (False, GUEST, "denied")]
)
def test_who_may_not_reload_sends_no_text(
    path: Path, read_only: bool, label: str, code: str
) -> None:
    with Kernel(policies=[Rules.from_text(RULES)]) as kernel:
        kernel.inspect_at(path, label=label, read_only=read_only)
        with Raw(path) as peer:
            peer.ask(HELLO)
            told = peer.ask('{"op":"reload","id":7,"texts":[{"name":"x","size":100}]}')
            assert (told["id"], told["error"]["code"]) == (7, code)
            assert "result" in peer.ask('{"op":"ping","id":8}')
        denied = [line for line in trail(kernel) if "reload_policy" in line]
        assert len(denied) == (code == "denied")


def ask_to_send(peer: Raw, size: int) -> None:
    peer.ask(HELLO)
    told = peer.ask(f'{{"op":"reload","id":7,"texts":[{{"name":"x","size":{size}}}]}}')
    assert told == {"id": 7, "table": "text", "rows": []}


def test_a_text_comes_in_pieces_and_the_next_request_behind_it(ruled: Kernel, path: Path) -> None:
    with Raw(path) as peer, Connection(path) as other:
        ask_to_send(peer, len(MORE))
        for at in range(0, len(MORE) - 9, 7):
            peer.socket.sendall(MORE[at : at + 7].encode())
        other.ping()
        assert not may_look(ruled)
        told = peer.ask(MORE[at + 7 :] + '{"op":"ping","id":8}')
        assert (told["id"], "result" in told, peer.next()["id"]) == (7, True, 8)
    assert may_look(ruled)


def test_one_policy_is_sent_at_a_time_and_not_for_ever(ruled: Kernel, path: Path) -> None:
    with Raw(path) as peer, Connection(path) as other:
        ask_to_send(peer, 100)
        peer.socket.sendall(b"allow guest guest kernel { inspect };")
        with pytest.raises(InspectError) as caught:
            other.reload(texts=[("new.rules", MORE.encode())])
        assert caught.value.code == "busy"
        assert peer.file.readline() == b""  # cut off, after a while
        other.reload(texts=[("new.rules", RULES.encode())])
    assert not may_look(ruled)


def test_who_goes_while_he_sends_changes_nothing(ruled: Kernel, path: Path) -> None:
    with Raw(path) as peer:
        ask_to_send(peer, len(MORE) + 1)
        peer.socket.sendall(MORE.encode())
    with Connection(path) as other:
        assert len(other.tasks()) == 0
        other.reload(texts=[("new.rules", RULES.encode())])  # the place is free
    assert not may_look(ruled)


# ---- its life ----


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_closing_the_kernel_closes_everything(path: Path) -> None:
    before, threads = descriptors(), threading.active_count()
    kernel = Kernel()
    kernel.inspect_at(path)
    connection = Connection(path)
    kernel.close()
    assert not path.parent.exists()
    assert threading.active_count() == threads
    with pytest.raises(InspectError) as caught:
        connection.ping()
    assert caught.value.code == "closed"
    assert descriptors() == before
    with pytest.raises(InspectError, match="no such socket"):
        Connection(path)


def test_closing_it_alone(kernel: Kernel, path: Path) -> None:
    control = kernel.inspect_at(path)
    control.close()
    control.close()
    assert not path.exists()
    kernel.inspect_at(path)
    with Connection(path) as connection:
        connection.ping()


def test_files_of_others_stay(kernel: Kernel, path: Path) -> None:
    control = kernel.inspect_at(path)
    path.unlink()
    path.write_text("precious")
    control.close()
    assert path.read_text() == "precious"


def collect(reference: "weakref.ref[Kernel]") -> None:
    """Collect until it is gone: the answer to a peer may just be let go."""
    while reference() is not None:
        gc.collect()


def test_a_peer_does_not_keep_the_kernel(path: Path) -> None:
    kernel = Kernel()
    kernel.inspect_at(path)
    gone = weakref.ref(kernel)
    with Connection(path) as connection:
        connection.ping()
        del kernel
        with pytest.warns(ResourceWarning, match="never closed"):
            collect(gone)


def test_a_child_of_fork_leaves_the_parents_alone(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path)
    with Connection(path) as connection:
        child = os.fork()
        if child == 0:
            kernel.close()
            os._exit(not path.exists())
        assert os.waitpid(child, 0)[1] == 0
        assert connection.ping() > 0


def test_a_server_that_died_is_replaced(kernel: Kernel, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(InspectError, match="nobody listens there any more"):
        Connection(path)
    kernel.inspect_at(path)
    with Connection(path) as connection:
        connection.ping()


def test_a_server_that_lives_is_not(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path)
    with pytest.raises(OSError, match="a server listens there"):
        kernel.inspect_at(path)
    with Connection(path) as connection:
        connection.ping()


# ---- the other end ----


def answering(path: Path, answer: bytes) -> threading.Thread:
    """A server that says one thing, whatever it is asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            connection.recv(100)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(100)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "closed"),
        (b"220 mail.example.com ESMTP\r\n", "protocol"),
        (b'{"id":2,"result":{}}\n', "protocol"),
        (b'{"id":1,"result":{}}\n', "protocol"),
        (b'{"id":1,"result":' + b"[" * 100_000 + b"}\n", "protocol"),
        (b'{"id":1,"error":{"code":"busy","message":"\\u001b[2J"}}\n', "busy"),
    ],
)
def test_servers_that_are_none(tmp_path: Path, answer: bytes, code: str) -> None:
    thread = answering(tmp_path / "s", answer)
    with pytest.raises(InspectError) as caught:
        Connection(tmp_path / "s")
    thread.join()
    assert caught.value.code == code
    assert str(tmp_path / "s") in str(caught.value)


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(InspectError, match=r"no answer within 0\.05 s") as caught:
            Connection(tmp_path / "s", timeout=0.05)
        assert caught.value.code == "timeout"


def test_more_than_may_connect(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path, limits=Limits(connections=2, requests=3))
    with Connection(path) as first, Connection(path):
        with pytest.raises(InspectError, match="2 others are connected") as caught:
            Connection(path)
        assert caught.value.code == "busy"
        first.ping()
        first.ping()
        with pytest.raises(InspectError, match="3 requests were answered"):
            first.ping()


def test_no_thread_to_serve(kernel: Kernel, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = descriptors()
    monkeypatch.setattr(threading.Thread, "start", fails)
    with pytest.raises(RuntimeError, match="new thread"):
        kernel.inspect_at(path)
    assert not path.parent.exists()
    assert descriptors() == before


def test_a_label_the_policy_no_longer_reads(path: Path) -> None:
    with Kernel(policies=[eyes()]) as kernel:
        kernel.create_task("old", "eyes/x")
        kernel.inspect_at(path, label="eyes/user")
        with Connection(path) as connection:
            assert len(connection.tasks()) == 1
            kernel.policies.unload("eyes")
            with pytest.raises(InspectError) as caught:
                connection.tasks()
            assert caught.value.code == "failed"
            assert connection.ping() > 0
