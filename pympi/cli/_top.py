# SPDX-License-Identifier: BSD-2-Clause
"""The screen of `pympi top`. Fits 80 columns and 24 lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.widgets import DataTable, Footer, Static

from ..errors import InspectError
from ..inspect.meter import Edge, Look, PortRate, Rates, rates
from ..trace.text import escape

ROWS = 200  # of a table: nobody looks further
#: What tables are sorted by: the fields of a port, and of an edge; the largest first, or by name.
ORDERS = {
    "messages": ("messages", "messages", True),
    "queue": ("queued", "messages", True),
    "name": ("receiver", "sender", False),
}


def _cell(text: str, size: int) -> Text:
    """Return a text that stays in its place, cut at its end."""
    cut = Text(escape(text), no_wrap=True)
    cut.truncate(size, overflow="ellipsis")
    return cut


def _number(text: str, size: int, style: str = "") -> Text:
    return Text(text.rjust(size), style, no_wrap=True)


def _rate(value: float, size: int) -> Text:
    return _number(f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}", size)


def _label(label: str) -> Text:
    """Return the end of a label, which says most."""
    shown = escape(label)
    return Text(shown if len(shown) <= 14 else f"…{shown[-13:]}", no_wrap=True)


def _port_cells(port: PortRate) -> list[Text]:
    full = "red" if port.queued >= port.limit else ""
    return [
        _number(str(port.port), 6), _cell(port.receiver, 16), _cell(port.service, 18),
        _rate(port.messages, 7), _number(f"{port.queued}/{port.limit}", 7, full),
        _label(port.label),
    ]  # fmt: skip


def _edge_cells(edge: Edge) -> list[Text]:
    return [
        _cell(edge.sender, 24), _cell(edge.receiver, 24), _rate(edge.messages, 9),
        _number(f"{edge.total:,}", 11),
    ]  # fmt: skip


#: Titles and widths; numbers are aligned at the right.
PORTS = (
    (" PORT", 6), ("RECEIVER", 16), ("SERVICE", 18), ("  MSG/S", 7), (" QUEUE", 7), ("LABEL", 14),
)  # fmt: skip
EDGES = (("FROM", 24), ("TO", 24), ("    MSG/S", 9), ("      TOTAL", 11))


class Top(App[InspectError]):
    """The application; it returns why it could look no more, or None.

    Args:
        look: returns a look at the system; it is called in a thread.
        title: what is looked at.
        interval: seconds between looks; 0: only `refresh_now` looks.
    """

    CSS = """
    Screen { layout: vertical; }
    #head { height: 4; padding: 0 1; }
    DataTable { height: 1fr; }
    #edges { height: 40%; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("m", "order('messages')", "by messages"),
        Binding("u", "order('queue')", "by queue"),
        Binding("n", "order('name')", "by name"),
        Binding("p", "pause", "pause"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, look: Callable[[], Look], title: str, interval: float = 1.0) -> None:
        super().__init__()
        self._look = look
        self._title = title
        self._interval = interval
        self._before: Look | None = None
        self.rates: Rates | None = None
        self.order = "messages"
        self.paused = False

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield DataTable(id="ports", cursor_type="row", zebra_stripes=True)
        yield DataTable(id="edges", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        ports, edges = self._table("ports"), self._table("edges")
        for table, columns in ((ports, PORTS), (edges, EDGES)):
            for title, width in columns:
                table.add_column(title, width=width)
        self._show()
        if self._interval:
            self.refresh_now()
            self.set_interval(self._interval, self.refresh_now)

    def _table(self, name: str) -> DataTable[Any]:
        table: DataTable[Any] = self.query_one(f"#{name}", DataTable)
        return table

    # ---- looks ----

    def refresh_now(self) -> None:
        """Look again, unless paused; a look that takes long is not overtaken."""
        if not self.paused and not any(not worker.is_finished for worker in self.workers):
            self.run_worker(self._work, thread=True, exit_on_error=False)

    def _work(self) -> None:
        try:
            look = self._look()
        except InspectError as error:
            self.call_from_thread(self.exit, error)
        else:
            self.call_from_thread(self.seen, look)

    def seen(self, look: Look) -> None:
        """Show what went on since the last look."""
        if self._before is not None:
            self.rates = rates(self._before, look)
        self._before = look
        self._show()

    # ---- keys ----

    def action_order(self, order: str) -> None:
        self.order = order
        self._show()

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._show()

    # ---- what is shown ----

    def _show(self) -> None:
        self.query_one("#head", Static).update(self._head())
        if self.rates is None:
            return
        of_port, of_edge, largest = ORDERS[self.order]
        ports = sorted(self.rates.ports, key=attrgetter("port"))
        ports.sort(key=attrgetter(of_port), reverse=largest)
        self._fill("ports", map(_port_cells, ports[:ROWS]))
        edges = sorted(self.rates.edges, key=attrgetter("sender", "receiver"))
        edges.sort(key=attrgetter(of_edge), reverse=largest)
        self._fill("edges", map(_edge_cells, edges[:ROWS]))

    def _fill(self, name: str, rows: Iterable[list[Any]]) -> None:
        table = self._table(name)
        at, seen_from = table.cursor_row, table.scroll_y
        table.clear()
        for row in rows:
            table.add_row(*row)
        table.move_cursor(row=at, animate=False, scroll=False)
        table.scroll_to(y=seen_from, animate=False)

    def _head(self) -> Text:
        state = "paused" if self.paused else f"by {self.order}"
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(escape(self._title), "bold")
        text.append(f"   {state}\n", "default")
        for line in _lines(self.rates):
            text.append_text(line).append("\n")
        return text


def _lines(found: Rates | None) -> list[Text]:
    if found is None:
        return [Text("looking ...")]
    rate, stats = found.per_second, found.stats
    hits = "-" if found.hit_rate is None else f"{found.hit_rate:.1%}"
    lost = f", {found.lost:,} not seen here" if found.lost else ""
    server = found.name_server
    names = (
        f"; services {server['names']:,}, contexts {server['contexts']:,}, "
        f"{server['requests']:,.0f} requests/s"
    ) if server else ""  # fmt: skip
    checks = Text(f"checks {rate['checks_avc'] + rate['misses']:,.0f}/s, hits {hits}, denials ")
    checks.append(f"{rate['denials']:,.0f}/s", "red" if rate["denials"] else "")
    checks.append(f"; audit {rate['audit_records']:,.0f}/s, lost ")
    checks.append(f"{stats['audit_lost']:,}", "red" if stats["audit_lost"] else "")
    return [
        Text(f"messages {rate['sent']:,.0f}/s, {stats['messages_queued']:,} queued{lost}"),
        checks,
        Text(
            f"tasks {stats['tasks']:,}, ports {stats['ports']:,}, names {stats['names']:,}{names}"
        ),
    ]
