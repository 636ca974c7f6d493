# SPDX-License-Identifier: BSD-2-Clause
"""Group M, the control socket and files: refused, and nothing is created or followed.

And what hostile peers do: nothing to others, to the kernel, or to this process's descriptors.
"""

from __future__ import annotations

import array
import errno
import os
import resource
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pympi import InspectError, Kernel
from pympi.inspect import Connection, Limits
from pympi.inspect import place as places

pytestmark = pytest.mark.timeout(120, method="thread")

HELLO = b'{"op":"hello"}\n'
NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
HASTY = Limits(request=0.1, idle=0.3, stall=0.3)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "control"


def peer_at(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(path))
    peer.settimeout(30)
    return peer


def refused_after(peer: socket.socket, piece: bytes, path: Path | None = None) -> int:
    """Send pieces until the peer is cut off; return how many bytes it took."""
    sent = 0
    try:
        while sent < 1 << 30:
            sent += peer.send(piece)
            if path is not None:
                served(path)
    except ConnectionError:
        return sent
    raise AssertionError("all was taken")


def read_all(peer: socket.socket) -> bytes:
    """Return what comes until the peer is cut off."""
    data = b""
    try:
        while some := peer.recv(1 << 16):
            data += some
    except ConnectionError:
        pass
    return data


def served(path: Path) -> None:
    """Others are served as if nothing had happened."""
    with Connection(path, timeout=30) as connection:
        connection.ping()


# ---- M1 to M12 ----


def test_m1_the_path_is_a_symbolic_link(kernel: Kernel, directory: Path, tmp_path: Path) -> None:
    directory.mkdir(mode=0o700)
    elsewhere = tmp_path / "elsewhere"
    (directory / "control").symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match="no socket"):
        kernel.inspect_at(directory / "control")
    assert not elsewhere.exists()
    (tmp_path / "linked").symlink_to(directory)
    for target in (directory, tmp_path / "nowhere"):
        (tmp_path / "linked").unlink()
        (tmp_path / "linked").symlink_to(target)
        with pytest.raises(NotADirectoryError, match="symbolic link"):
            kernel.inspect_at(tmp_path / "linked" / "other")
    assert not (directory / "other").exists()
    assert not (tmp_path / "nowhere").exists()


@ROOT_ONLY
def test_m2_a_stale_socket_of_another_user(kernel: Kernel, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    os.chown(path, NOBODY, NOBODY)
    before = path.lstat()
    with pytest.raises(PermissionError, match=f"a socket of user {NOBODY}"):
        kernel.inspect_at(path)
    assert path.lstat() == before


def test_m2_something_else_in_its_place(kernel: Kernel, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        kernel.inspect_at(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_m3_others_may_write_to_the_directory(
    kernel: Kernel, directory: Path, path: Path, bits: int
) -> None:
    directory.mkdir()
    directory.chmod(bits)
    with pytest.raises(PermissionError, match="others may write"):
        kernel.inspect_at(path)
    assert list(directory.iterdir()) == []


def test_m3_others_may_replace_the_directory(kernel: Kernel, directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    (directory / "own").mkdir(mode=0o700)
    with pytest.raises(PermissionError, match="could replace"):
        kernel.inspect_at(directory / "own" / "control")
    directory.chmod(0o1777)  # sticky: what is in it is its owners'
    kernel.inspect_at(directory / "own" / "control")


@ROOT_ONLY
def test_m3_the_directory_is_another_users(kernel: Kernel, directory: Path, path: Path) -> None:
    directory.mkdir(mode=0o700)
    os.chown(directory, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match=f"belongs to user {NOBODY}"):
        kernel.inspect_at(path)
    assert list(directory.iterdir()) == []


def test_m4_nobody_connects_before_the_mode_is_set(
    kernel: Kernel, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    chmod = Path.chmod

    def try_first(self: Path, bits: int) -> None:
        for _ in range(2):  # before, and after
            with socket.socket(socket.AF_UNIX) as early:
                outcomes.append(early.connect_ex(str(self)))
            chmod(self, bits)

    monkeypatch.setattr(Path, "chmod", try_first)
    kernel.inspect_at(path)
    assert outcomes == [errno.ECONNREFUSED] * 2
    assert mode(path) == 0o600


@ROOT_ONLY
def test_m5_a_peer_of_another_user(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path)
    path.parent.chmod(0o755)  # as wide open as it can be
    path.chmod(0o666)
    above = [p for p in path.parents if not mode(p) & 0o001]
    for each in above:
        each.chmod(mode(each) | 0o011)
    child = os.fork()
    if child == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            Connection(path)
        except InspectError as error:
            os._exit(0 if error.code == "denied" and str(NOBODY) in str(error) else 1)
        except BaseException:
            os._exit(2)
        os._exit(3)
    assert os.waitpid(child, 0)[1] == 0
    served(path)


def test_m5_a_user_who_is_not_allowed(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path, allow=[NOBODY - 1])
    with pytest.raises(InspectError, match="may not look at this kernel") as caught:
        Connection(path)
    assert caught.value.code == "denied"


@pytest.mark.parametrize("name", ["\0control", "\0", "", "a\0b"])
def test_m6_abstract_names(kernel: Kernel, name: str) -> None:
    before = Path("/proc/net/unix").read_text().count("control")
    with pytest.raises(ValueError, match="abstract names"):
        kernel.inspect_at(name)
    with pytest.raises(ValueError, match="abstract names"):
        Connection(name)
    assert Path("/proc/net/unix").read_text().count("control") == before


@pytest.mark.parametrize("said", [b"", b'{"op":', HELLO + b'{"op"', HELLO])
def test_m7_half_open_and_slow(kernel: Kernel, path: Path, said: bytes) -> None:
    kernel.inspect_at(path, limits=HASTY)
    with peer_at(path) as slow:
        slow.sendall(said)
        served(path)
        answer = read_all(slow)
    assert answer.count(b"\n") == said.count(b"\n")
    served(path)


def test_m7_a_byte_at_a_time(kernel: Kernel, path: Path) -> None:
    """Each byte in time does not make a request that is in time."""
    kernel.inspect_at(path, limits=Limits(request=0.1))
    with peer_at(path) as slow:
        assert refused_after(slow, b"[", path) < 4096


def test_m7_one_who_never_reads(kernel: Kernel, path: Path) -> None:
    task = kernel.create_task("server")
    for _ in range(4000):
        task.allocate_port()
    kernel.inspect_at(path, limits=Limits(stall=0.2, walks=1))
    with peer_at(path) as deaf:
        deaf.sendall(HELLO + b'{"op":"snapshot"}\n')
        served(path)
        with Connection(path, timeout=30) as connection:
            while (count := ports_of(connection)) is None:  # until the deaf one is cut off
                connection.ping()
            assert count == 4000


def ports_of(connection: Connection) -> int | None:
    """How many ports there are; None: the server has no room for the question."""
    try:
        return len(connection.ports())
    except InspectError as error:
        if error.code != "busy":
            raise
        return None


@pytest.mark.parametrize("said", [b"", HELLO])
def test_m8_a_line_of_a_gigabyte(kernel: Kernel, path: Path, said: bytes) -> None:
    kernel.inspect_at(path)
    with peer_at(path) as peer:
        peer.sendall(said)
        sent = refused_after(peer, b"x" * (1 << 20))
        answer = read_all(peer)
    assert sent < 4 << 20
    assert b"at most 4096 bytes" in answer
    served(path)


def test_m9_descriptors_nobody_asked_for(kernel: Kernel, path: Path) -> None:
    kernel.inspect_at(path)
    served(path)
    reading, writing = os.pipe()
    try:
        with peer_at(path) as peer:
            rights = array.array("i", [writing] * 50)
            peer.sendmsg([HELLO], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            os.close(writing)
            read_all(peer)  # cut off
        assert os.read(reading, 1) == b""  # nobody has the other end
    finally:
        os.close(reading)
    served(path)


def test_m10_a_temporary_file_that_was_foreseen(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    names = iter(["foreseen", "foreseen", "not"])
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: names)
    (tmp_path / ".foreseen.snapshot").symlink_to(victim)
    kernel.snapshot(tmp_path / "a.snap")
    assert victim.read_text() == "precious"
    assert (tmp_path / ".foreseen.snapshot").is_symlink()
    assert not (tmp_path / "a.snap").is_symlink()


def test_m11_no_umask(kernel: Kernel, directory: Path, path: Path) -> None:
    before = os.umask(0)
    try:
        kernel.inspect_at(path)
        kernel.snapshot(directory / "a.snap")
    finally:
        assert os.umask(before) == 0  # it is the whole process's: nobody else touched it
    assert (mode(directory), mode(path), mode(directory / "a.snap")) == (0o700, 0o600, 0o600)


def test_m12_a_path_too_long(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "own" / ("x" * places.LONGEST)
    with pytest.raises(ValueError, match=f"at most {places.LONGEST} bytes, this has"):
        kernel.inspect_at(path)
    with pytest.raises(ValueError, match="choose a shorter one"):
        Connection(path)
    assert list(tmp_path.iterdir()) == []


def test_m12_a_path_as_long_as_can_be(kernel: Kernel) -> None:
    with tempfile.TemporaryDirectory() as short:
        directory = Path(short).resolve() / "own"
        path = directory / ("x" * (places.LONGEST - len(str(directory)) - 1))
        kernel.inspect_at(path)
        served(path)


# ---- hostile peers ----


@pytest.fixture
def unharmed(kernel: Kernel, path: Path) -> Iterator[None]:
    """What is done meanwhile costs nobody anything, and leaves no descriptor open."""
    control = kernel.inspect_at(path, limits=Limits(connections=8, request=0.2, stall=0.2))
    served(path)
    control.close()
    before = descriptors()
    control = kernel.inspect_at(path, limits=Limits(connections=8, request=0.2, stall=0.2))
    yield
    served(path)
    control.close()
    assert descriptors() == before


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 1000 + b"\n",
        b"\xff\xfe\xfd\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"[" * 4000 + b"\n",
        b'{"op":"hello","op":"hello","id":1e999}\n',
        b'{"op":"\\ud800"}\n',
        HELLO
        + b'{"op":"tasks","task":NaN}\n{"op":"reload","module":"'
        + b"\xe2\x80\xae" * 500
        + b'"}\n',
        b"\n" * 3000,
    ],
)
def test_garbage(path: Path, garbage: bytes) -> None:
    with peer_at(path) as peer:
        peer.sendall(garbage)
        peer.shutdown(socket.SHUT_WR)
        for line in read_all(peer).splitlines():
            assert b'"error"' in line or b'"result"' in line


@pytest.mark.usefixtures("unharmed")
def test_a_thousand_connections(path: Path) -> None:
    """Both ends are in this process, which may have to raise what it may open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 4096), before[1]))
    peers = [socket.socket(socket.AF_UNIX) for _ in range(1000)]
    try:
        with Connection(path, timeout=30) as patient:
            for peer in peers:
                peer.setblocking(False)
                assert peer.connect_ex(str(path)) in (0, errno.EAGAIN)
            patient.ping()
    finally:
        for peer in peers:
            peer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("read", [0, 1, 5000])
def test_gone_in_the_middle(kernel: Kernel, path: Path, read: int) -> None:
    task = kernel.create_task("server")
    for _ in range(1000):
        task.allocate_port()
    for _ in range(20):
        with peer_at(path) as peer:
            peer.sendall(HELLO + b'{"op":"snapshot"}\n')
            if read:
                peer.recv(read)


def fill(handle: int) -> list[int]:
    """Open as many descriptors as there may be."""
    filler = []
    try:
        while True:
            filler.append(os.dup(handle))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    return filler


@pytest.mark.usefixtures("unharmed")
def test_no_descriptors_left(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """H7: accept() fails, those who are connected are served, and later all are."""
    limits, filler = resource.getrlimit(resource.RLIMIT_NOFILE), []
    with Connection(path, timeout=30) as patient, socket.socket(socket.AF_UNIX) as late:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 1, limits[1]))
            filler = fill(late.fileno())
            late.connect(str(path))  # it is in line; nobody can take it
            late.settimeout(30)
            late.sendall(HELLO)
            patient.ping()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for handle in filler:
                os.close(handle)
        assert b'"result"' in late.recv(10_000)
    assert caplog.text.count("takes nobody for now: [Errno 24]") == 1  # it does not spin


def test_m7_an_answer_that_is_read_forever(kernel: Kernel, path: Path) -> None:
    """A byte now and then does not hold an answer's tables for longer than an answer may take."""
    task = kernel.create_task("server")
    for _ in range(4000):
        task.allocate_port()
    kernel.inspect_at(path, limits=Limits(answer=0.3))
    with peer_at(path) as slow:
        slow.sendall(HELLO + b'{"op":"snapshot"}\n')
        while slow.recv(64):
            served(path)
