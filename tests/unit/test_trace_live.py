# SPDX-License-Identifier: BSD-2-Clause
"""The trace of a running kernel."""

from collections import Counter
from pathlib import Path

import pytest

from pympi import Kernel, Task
from pympi.trace import read_trace
from pympi.trace.text import TraceError, TraceRecord


def counts(kernel: Kernel) -> Counter[tuple[str, str, str]]:
    return Counter({(r.event, r.task, r.owner): r.count for r in kernel.trace.records()})


def test_nothing_is_counted_before_it_is_started(kernel: Kernel, server: Task) -> None:
    server.allocate_port().make_send(server).send(b"")
    assert kernel.trace.records() == []
    assert kernel.trace.lost == 0


def test_every_event_is_counted(kernel: Kernel, server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    kernel.trace.start()
    for _ in range(3):
        right.send(b"")
        port.receive()
    spool = client.allocate_port()
    right.send(b"", rights=[spool.make_send(), spool.move_receive()], reply=client.allocate_port())
    port.receive()
    assert counts(kernel) == {
        ("send", "client", "server"): 4,
        ("copy_send", "client", "server"): 4,
        ("recv", "server", "server"): 4,
        ("make_send", "client", "client"): 1,
        ("move_recv", "client", "client"): 1,
        ("make_send_once", "client", "client"): 1,
        ("hold_send", "server", "client"): 1,
        ("hold_recv", "server", "client"): 1,
        ("hold_send_once", "server", "client"): 1,
    }


def test_stop_keeps_and_reset_forgets(kernel: Kernel, server: Task) -> None:
    port = server.allocate_port()
    send = port.make_send(server).sender()
    kernel.trace.start()
    send(b"")
    kernel.trace.stop()
    send(b"")
    assert counts(kernel)["send", "server", "server"] == 1
    kernel.trace.reset()
    assert kernel.trace.records() == []
    kernel.trace.start()
    send(b"")
    assert counts(kernel)["send", "server", "server"] == 1


def test_a_port_keeps_the_identity_it_was_made_with(kernel: Kernel, server: Task) -> None:
    port = server.allocate_port(trace=("mach_kernel", "clock", 0))
    right = port.make_send(server)
    kernel.trace.start()
    right.send(b"")
    first = kernel.trace.records()[0]
    assert first == TraceRecord("send", "server", "mach_kernel", 25, 0, 1)
    with pytest.raises(ValueError, match="no kernel object is called 'clok'"):
        server.allocate_port(trace=("x", "clok", 0))


def test_saved_in_both_forms(kernel: Kernel, server: Task, client: Task, tmp_path: Path) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    kernel.trace.start()
    right.send(b"")
    port.receive()
    full, sedarwin = tmp_path / "full.trace", tmp_path / "sedarwin.trace"
    kernel.trace.save(full)
    kernel.trace.save(sedarwin, form="sedarwin")
    assert read_trace(full) == kernel.trace.records()
    assert [r.event for r in read_trace(sedarwin)] == ["send", "copy_send"]
    with pytest.raises(ValueError, match="'full' or 'sedarwin'"):
        kernel.trace.save(full, form="xml")


def test_names_a_form_cannot_say_are_refused(kernel: Kernel, tmp_path: Path) -> None:
    task = kernel.create_task("two\nlines")
    right = task.allocate_port().make_send(task)
    kernel.trace.start()
    right.send(b"")
    kernel.trace.save(tmp_path / "full.trace")
    assert read_trace(tmp_path / "full.trace")[0].task == "two\nlines"
    with pytest.raises(TraceError):
        kernel.trace.save(tmp_path / "sedarwin.trace", form="sedarwin")
    assert not (tmp_path / "sedarwin.trace").exists()


def test_what_finds_no_room_is_counted() -> None:
    with Kernel(trace_paths=4) as kernel:
        kernel.trace.start()
        for number in range(40):
            task = kernel.create_task(f"task {number}")
            task.allocate_port().make_send(task).send(b"")
        assert len(kernel.trace.records()) == 16
        assert kernel.trace.lost > 0
