# SPDX-License-Identifier: BSD-2-Clause
"""`pympi watch` and `pympi top` at a control socket."""

import asyncio
import builtins
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pympi import AccessDenied, Kernel, SendRight
from pympi.cli import main
from pympi.cli.watch import line_of
from pympi.enums import ALL, ObjectClass
from pympi.errors import InspectError
from pympi.inspect import Connection
from pympi.inspect.messages import Joiner
from pympi.inspect.meter import Look, Meter, rates
from pympi.mig import Interface
from pympi.policy import Decision, PolicyModule

Run = Callable[..., tuple[int, str, str]]


class Clerk(PolicyModule):
    """Nobody sets the default printer."""

    name = "clerk"

    def decide(self, source: str, target: str, tclass: ObjectClass) -> Decision:
        refused = tclass.mask("set_default") if tclass.name == "mi_printing" else 0
        return Decision(allowed=ALL & ~refused)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control"


@pytest.fixture
def kernel(path: Path) -> Iterator[Kernel]:
    with Kernel([Clerk()]) as kernel:
        kernel.inspect_at(path)
        yield kernel


@pytest.fixture
def printer(kernel: Kernel) -> SendRight:
    inbox = kernel.create_task("printd").allocate_port()
    inbox.serve(Interface("printing", 1200, ["print_page", "set_default"]))
    return inbox.make_send(kernel.create_task("edi\ntor\u202e"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], path: Path) -> Run:
    """The verb, attached."""

    def call(verb: str, *words: str) -> tuple[int, str, str]:
        code = main([verb, "--attach", str(path), *words])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something happen as soon as the verb watches."""

    def arrange(act: Callable[[], object]) -> None:
        whole = Connection.watch_batches

        def watched(self: Connection, *words: str) -> Iterator[Any]:
            batches = whole(self, *words)
            yield next(batches)
            act()
            yield from batches

        monkeypatch.setattr(Connection, "watch_batches", watched)

    return arrange


def traffic(printer: SendRight) -> None:
    printer.send(b"page", msgh_id=1200)
    with pytest.raises(AccessDenied):
        printer.send(b"mine", msgh_id=1201)


def test_a_line_for_each(run: Run, during: Any, printer: SendRight) -> None:
    during(lambda: traffic(printer))
    code, out, err = run("watch", "--count", "2")
    assert (code, err) == (0, "")
    words = [line.split()[1:] for line in out.splitlines()]
    assert words == [
        ["edi\\u{a}tor\\u{202e}", "(2)", "->", "printd", "(1)", "print_page", "4", "B", "granted"],
        ["edi\\u{a}tor\\u{202e}", "(2)", "->", "printd", "(1)", "set_default",
         "denied", "set_default"],
    ]  # fmt: skip


def test_filters_and_json(run: Run, during: Any, printer: SendRight) -> None:
    during(lambda: traffic(printer))
    code, out, _ = run("watch", "outcome=denied", "task=edi*", "--json", "--count", "1")
    told = json.loads(out)
    assert (code, out.isascii()) == (0, True)
    assert (told["what"], told["record"]["denied"]) == ("set_default", ["set_default"])
    assert told["record"]["task_name"] == "edi\ntor\u202e"


@pytest.mark.usefixtures("printer")
def test_a_filter_that_is_none(run: Run) -> None:
    code, _, err = run("watch", "colour=red")
    assert (code, "there are: task=, to=, label=" in err) == (2, True)
    code, _, err = run("watch", "routine=fly")
    assert (code, "no routine 'fly'; there are: print_page, set_default" in err) == (2, True)


def test_nobody_there(run: Run) -> None:
    for verb in ("watch", "top"):
        code, out, err = run(verb)
        assert (code, out) == (2, "")
        assert "there is no such socket" in err


@pytest.mark.usefixtures("kernel")
def test_interrupted_without_a_word(run: Run, during: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    during(interrupt)
    assert run("watch") == (0, "", "")


def test_the_system_ends(run: Run, during: Any, kernel: Kernel) -> None:
    during(kernel.close)
    code, _, err = run("watch")
    assert code == 2
    assert "closed" in err


def test_losses_are_a_line(
    run: Run, kernel: Kernel, printer: SendRight, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kernel.watch("permission=send") as watch:
        printer.send(b"page", msgh_id=1200)
        [record] = watch.take()
    lossy = [[], [record, replace(record, transfer=99, lost=1234)]]
    monkeypatch.setattr(Connection, "watch_batches", lambda *_: iter(lossy))
    code, out, err = run("watch")
    assert (code, len(out.splitlines()), err) == (0, 2, "pympi: 1,234 records were lost here\n")


def test_replies_denials_and_clocks_in_a_line(kernel: Kernel, printer: SendRight) -> None:
    with kernel.watch("permission=send") as watch:
        printer.send(b"page", msgh_id=1200)
        [happening] = [*(joiner := Joiner()).add(watch.take()), *joiner.flush()]
    record = replace(happening.record, time=2.5, receiver=0, receiver_name="")
    assert line_of(replace(happening, record=record)).startswith("       2.500000  edi\\u{a}tor")
    assert "-> port 1" in line_of(replace(happening, record=record))
    reply = replace(happening, kind="reply", what="print_page", latency=0.0125)
    assert line_of(reply).endswith("4 B  granted, after 12.500 ms")
    assert "  reply to print_page  " in line_of(reply)
    permissive = replace(record, denied=("send",), flags=("PERMISSIVE",))
    assert line_of(replace(happening, record=permissive)).endswith("would be denied send")
    reported = replace(record, reported=("send",))
    assert line_of(replace(happening, record=reported)).endswith("though send would be denied")
    failed = replace(record, outcome="failed", result="MACH_RCV_BODY_ERROR")
    assert line_of(replace(happening, record=failed)).endswith("failed MACH_RCV_BODY_ERROR")


def test_a_line_fits_the_terminal(kernel: Kernel, printer: SendRight) -> None:
    with kernel.watch("permission=send") as watch:
        printer.send(b"page", msgh_id=1200)
        [happening] = [*(joiner := Joiner()).add(watch.take()), *joiner.flush()]
    shown = [
        replace(happening, kind="reply", what="print_page", latency=0.0125),
        replace(happening, what="set_default",
                record=replace(happening.record, denied=("set_default",))),
        replace(happening, what="x" * 99,
                record=replace(happening.record, outcome="failed", result="MACH_RCV_BODY_ERROR")),
    ]  # fmt: skip
    lines = [line_of(each, 80) for each in shown]
    outcomes = [line.split("  ")[-1].strip() for line in lines]
    assert outcomes == ["12.500 ms", "denied", "failed MACH…"]
    assert max(map(len, lines)) <= 80
    assert "…" in lines[2].split("  ")[2]
    for room in (40, 110, 300):
        assert max(len(line_of(each, room)) for each in shown) <= room
    assert line_of(shown[0], 300).endswith("granted, after 12.500 ms")


# ---- top ----


@pytest.fixture
def looks(kernel: Kernel, printer: SendRight, path: Path) -> tuple[Look, Look]:
    """Two looks, ten seconds apart."""
    printer.task.kernel.tasks[1].bootstrap.create_service("com.example.free")
    meter = Meter(path)
    first = meter.look()
    for _ in range(2):
        printer.send(b"page", msgh_id=1200)
    with pytest.raises(AccessDenied):
        printer.send(b"mine", msgh_id=1201)
    while (second := meter.look()).by_edge.get((2, 1)) != 2:
        pass
    second = replace(second, snapshot=kernel.snapshot())
    meter.close()
    return replace(first, time=0.0), replace(second, time=10.0)


def test_rates(looks: tuple[Look, Look]) -> None:
    found = rates(*looks)
    [port] = found.ports
    assert (port.receiver, port.messages, port.queued, port.limit) == ("printd (1)", 0.2, 2, 5)
    [edge] = found.edges
    assert (edge.sender, edge.receiver, edge.total) == ("edi\ntor\u202e (2)", "printd (1)", 2)
    assert found.per_second["sent"] == 0.2
    assert found.per_second["denials"] == 0.1
    assert found.name_server == {"names": 1, "contexts": 1, "requests": 0}
    assert found.hit_rate is not None
    same = rates(looks[1], replace(looks[1], time=11.0))
    assert same.hit_rate is None
    assert [edge.messages for edge in same.edges] == [0]


def test_a_system_that_ends_ends_the_looks(kernel: Kernel, path: Path) -> None:
    meter = Meter(path)
    kernel.close()
    with pytest.raises(InspectError):
        meter.look()
    meter.close()


def on_screen(app: Any) -> str:
    """Return what is to be read on the screen."""
    from textual.widgets import DataTable, Static

    app.query_one("#head", Static)
    rows = [
        " ".join(str(cell) for cell in table.get_row_at(at))
        for table in app.query(DataTable) for at in range(table.row_count)
    ]  # fmt: skip
    return "\n".join([str(app._head()), *rows])


def test_the_screen(looks: tuple[Look, Look]) -> None:
    pytest.importorskip("textual", reason="top needs textual: pip install 'pympi-mach[top]'")
    from pympi.cli._top import Top

    async def use() -> None:
        app = Top(lambda: looks[1], "run/con\ntrol", interval=0)
        async with app.run_test(size=(80, 24)) as pilot:
            assert "looking ..." in on_screen(app)
            app.seen(looks[0])
            app.seen(looks[1])
            await pilot.pause()
            text = on_screen(app)
            assert "run/con\\u{a}trol" in text
            assert "messages 0/s, 2 queued" in text
            assert "denials 0/s" in text
            assert "edi\\u{a}tor\\u{202e} (2)" in text
            assert "\u202e" not in text
            assert "2/5" in text
            await pilot.press("u")
            assert (app.order, "by queue" in on_screen(app)) == ("queue", True)
            await pilot.press("n")
            assert app.order == "name"
            await pilot.press("p")
            assert "paused" in on_screen(app)
            before = app.rates
            app.refresh_now()
            await pilot.pause()
            assert app.rates is before
            await pilot.press("p", "m")
            app.refresh_now()
            await app.workers.wait_for_complete()
            await pilot.pause()
            assert app.rates is not before
            for widget in app.query("Static, DataTable, Footer"):
                assert widget.region.right <= 80
                assert widget.region.bottom <= 24
            assert all(not table.show_horizontal_scrollbar for table in app.query("DataTable"))
            await pilot.press("q")
        assert app.return_value is None

    asyncio.run(use())


def test_the_screen_ends_with_the_system() -> None:
    pytest.importorskip("textual", reason="top needs textual: pip install 'pympi-mach[top]'")
    from pympi.cli._top import Top

    def gone() -> Look:
        raise InspectError("closed", "the server closed the connection")

    async def use() -> object:
        app = Top(gone, "x", interval=0)
        async with app.run_test(size=(80, 24)) as pilot:
            app.refresh_now()
            while app.return_value is None:
                await pilot.pause()
        return app.return_value

    assert isinstance(asyncio.run(use()), InspectError)


@pytest.mark.usefixtures("kernel")
def test_without_textual(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "textual":
            raise ModuleNotFoundError("No module named 'textual'")
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "pympi.cli._top", raising=False)
    code, _, err = run("top")
    assert (code, "pip install 'pympi-mach[top]'" in err) == (2, True)
