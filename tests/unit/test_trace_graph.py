# SPDX-License-Identifier: BSD-2-Clause
"""pympi.trace.graph: the same edges from a trace and from the audit of the same run."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import resources
from pathlib import Path

import pytest

from pympi import AccessDenied, Kernel, MachError
from pympi.audit import Batch
from pympi.mig import Interface
from pympi.policy import PolicyModule, Rules
from pympi.testing import allow_all
from pympi.trace import Labels, TraceRecord, make_plan, read_trace
from pympi.trace.graph import Ask, Edge, Graph, GraphError, from_audit, from_trace, model, overlay
from pympi.trace.graph.dot import tooltips
from pympi.trace.graph.paths import Path as PortPath
from pympi.trace.graph.paths import PortKey
from pympi.trace.replay import System

DATA = Path(str(resources.files("pympi"))) / "data"


def record(event: str, task: str, owner: str, number: int, count: int, kind: int = 0):
    return TraceRecord(event, task, owner, kind, number, count)


def edges(graph: Graph) -> dict[tuple[str, str], Edge]:
    return {(edge.source, edge.target): edge for edge in graph.edges}


SENT = {"send": 1, "copy_send": 1}
CALLS = [
    record("copy_send", "client", "server", 7, 5),
    record("send", "client", "server", 7, 5),
    record("send", "server", "client", 3, 5),  # by rights for one message: never copied
]


def test_replies_belong_to_the_requests_they_answer() -> None:
    (edge,) = from_trace(CALLS).edges
    assert (edge.source, edge.target) == ("task client", "task server")
    assert (edge.messages, edge.replies, edge.transfers) == (5, 5, 0)
    unfolded = edges(from_trace(CALLS, fold=False))
    assert unfolded["task server", "task client"].messages == 5
    assert unfolded["task client", "task server"].replies == 0


def test_a_reply_to_nothing_is_an_edge_of_its_own() -> None:
    (edge,) = from_trace(CALLS[2:]).edges
    assert (edge.source, edge.target, edge.messages) == ("task server", "task client", 5)


def test_by_port_label_and_service() -> None:
    assert [node.id for node in from_trace(CALLS, by="port").nodes] == [
        "port server:7", "task client", "task server",
    ]  # fmt: skip
    assert [node.name for node in from_trace(CALLS, by="label").nodes] == [
        "rules/port_server", "rules/task_client", "rules/task_server",
    ]  # fmt: skip
    (edge,) = from_trace(CALLS, by="service").edges
    assert edge.target == "task server"
    shared = [*CALLS, record("copy_send", "other", "server", 7, 1)]
    shared.append(record("send", "other", "server", 7, 1))
    targets = {edge.target for edge in from_trace(shared, by="service").edges}
    assert targets == {"service server:7"}


def test_a_port_is_the_service_that_the_name_server_finds_it_by() -> None:
    """A name that was asked to be registered may be another's: that is not believed."""
    with Kernel(policies=[allow_all()]) as kernel:
        kernel.audit.everything()
        names = kernel.start_bootstrap()
        printd, thief, editor = (kernel.create_task(n, f"rules/{n}") for n in ("pr", "th", "ed"))
        for task in (printd, thief, editor):
            names.give(task)
        printd.bootstrap.register("printing", inbox := printd.allocate_port())
        with suppress(MachError):
            thief.bootstrap.register("printing", trap := thief.allocate_port())
        right = editor.bootstrap.look_up("printing")
        trap.make_send(editor).send(b"page")
        for _ in range(3):
            right.send(b"page")
            inbox.receive()
        batches = [kernel.audit.batch(kernel.audit.drain())]
    graph = from_audit(batches, by="service")
    found = edges(graph)
    assert found["task ed", "service printing"].messages == 3
    assert found["task ed", "service printing"].events["look_up"] == 1
    assert found["task ed", "task th"].messages == 1
    assert graph.node("service printing").owner == "task pr"
    assert graph.node("task pr").own["recv"] > 0
    assert "port pr:" in str([node.id for node in from_audit(batches, by="port").nodes])


@pytest.mark.parametrize("by", ["port", "service"])
def test_ports_of_the_kernel_are_its_own_without_a_kind_too(by: str) -> None:
    paths = [PortPath(each, PortKey("mach_kernel", 0, 4), events=dict(SENT)) for each in "ab"]
    assert model.from_paths(paths, by).node("kernel mach_kernel:4").kind == "kernel"


def test_limits_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraphError, match="by task, port, label, service, not by 'colour'"):
        from_trace(CALLS, by="colour")
    monkeypatch.setattr(model, "MAX_NODES", 1)
    with pytest.raises(GraphError, match="at most 1 nodes"):
        from_trace(CALLS)


def test_json_of_hostile_names() -> None:
    graph = from_trace([record("send", "\ud800\n<b>", '"\\', 1, 1)])
    names = [node["name"] for node in json.loads(graph.as_json())["nodes"]]
    assert sorted(names) == ['"\\', "?\n<b>"]


# ---- a run, recorded twice ----


class Recorded:
    """A replay of a trace, as ipctrace and as audit have it.

    Both look on after the tasks got their standing rights, unless the whole is to be seen: then
    audit can tell whose ports they are.
    """

    def __init__(self, trace: Path, policies: list[PolicyModule], *, whole: bool = False) -> None:
        self.batches: list[Batch] = []
        with System(make_plan(read_trace(trace)), policies=policies) as system:
            if not whole:
                system._introduce()
                system.kernel.audit.drain()
            system.kernel.trace.start()
            system.kernel.audit.everything()
            system.kernel.audit.attach(self.batches.append)
            system._introduce()
            before = system.kernel.trace.records()
            system.kernel.audit.flush()  # the round drains
            system.round()
            system.kernel.audit.flush()
            self.records = [*before, *system.kernel.trace.records()]


def events(graph: Graph, but: tuple[str, ...] = ()) -> dict[tuple[str, str], dict[str, int]]:
    counts = {
        key: {event: n for event, n in edge.events.items() if event not in but}
        for key, edge in edges(graph).items()
    }
    return {key: found for key, found in counts.items() if found}


@pytest.fixture(params=["demo", pytest.param("darwin-boot", marks=pytest.mark.real_data)])
def trace(request: pytest.FixtureRequest) -> Path:
    if request.param == "demo":
        return DATA / "demo.trace"
    shared: Path = request.getfixturevalue("shared_data")
    return shared / "ipctrace" / "darwin-boot.trace"


@pytest.mark.parametrize("fold", [True, False])
def test_audit_and_ipctrace_agree_on_every_event(trace: Path, fold: bool) -> None:
    run = Recorded(trace, [Rules.from_text("allow * * * { * };")])
    audited, traced = from_audit(run.batches, fold=fold), from_trace(run.records, fold=fold)
    assert events(audited) == events(traced)
    assert [(e.source, e.target, e.replies, e.transfers) for e in audited.edges] == [
        (e.source, e.target, e.replies, e.transfers) for e in traced.edges
    ]


def test_without_labels_they_agree_too(trace: Path) -> None:
    run = Recorded(trace, [], whole=True)
    audited, traced = (from_audit(run.batches, fold=False), from_trace(run.records, fold=False))
    assert events(audited) == events(traced)


def test_refusals_are_edges_of_the_audit() -> None:
    run = Recorded(DATA / "demo.trace", [Rules.from_file(DATA / "demo.rules")])
    denied = [edge for edge in from_audit(run.batches).edges if edge.outcome == "denied"]
    assert {(edge.source.split("/")[-1], edge.target.split("/")[-1]) for edge in denied} == {
        ("login", "port-desktop-greeter"), ("fetch-agent", "keys"), ("fetch-agent", "storage"),
    }  # fmt: skip
    assert {(d.permission, d.reason) for edge in denied for d in edge.denied} == {
        ("send copy_send", "MACH_SEND_INVALID_DEST")
    }
    assert sum(edge.refusals for edge in denied) == 49


RECEIVES = """
allow a b mach_port { send copy_send hold_send };
allow b b mach_port { make_send hold_send use_recv };
"""


def refused_to_receive(senders: int = 1) -> Graph:
    with Kernel(policies=[Rules.from_text(RECEIVES)]) as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("b", "rules/b").allocate_port(label="rules/b")
        for number in range(senders):
            inbox.make_send(kernel.create_task(f"a{number}", "rules/a")).send(b"")
            with suppress(AccessDenied):
                inbox.receive()
        return from_audit([kernel.audit.batch(kernel.audit.drain())])


def test_what_is_refused_at_the_receiving_end_is_refused_to_who_sent_it() -> None:
    (edge,) = refused_to_receive().edges
    assert (edge.source, edge.target, edge.outcome) == ("task a0", "task b", "denied")
    assert [(each.permission, each.reason) for each in edge.denied] == [
        ("recv", "MACH_RCV_INVALID_DATA")
    ]
    found = edges(refused_to_receive(2))  # both have the label that was refused
    assert found["task a0", "task b"].outcome == "allowed"
    assert found["task b", "task b"].refusals == 2


# ---- a policy laid over it ----


def test_overlay_of_what_is_done_with_own_ports() -> None:
    """Receiving is no edge, but a policy may refuse it."""
    with Kernel(policies=[allow_all()]) as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("b", "rules/b").allocate_port(label="rules/b")
        inbox.make_send(kernel.create_task("a", "rules/a")).send(b"")
        inbox.receive()
        graph = from_audit([kernel.audit.batch(kernel.audit.drain())])
    laid = edges(overlay(graph, [Rules.from_text(RECEIVES)]))
    assert laid["task a", "task b"].outcome == "allowed"
    own = laid["task b", "task b"]
    assert (own.outcome, [(d.permission, d.reason) for d in own.denied]) == (
        "would_deny", [("recv", "rules/b to rules/a")]
    )  # fmt: skip
    assert len(overlay(graph, [allow_all()]).edges) == len(graph.edges) == 1


def test_overlay() -> None:
    graph = from_trace(read_trace(DATA / "demo.trace"), labels=Labels())
    laid = overlay(graph, [Rules.from_file(DATA / "demo.rules")], unused=True, most=10)
    outcomes = {outcome: [] for outcome in ("would_deny", "allowed", "unused")}
    for edge in laid.edges:
        outcomes[edge.outcome].append(edge.target.split("/")[-1])
    assert sorted(outcomes["would_deny"]) == ["greeter", "keys", "storage"]
    assert len(outcomes["unused"]) == 10
    assert laid.notes[0].endswith("allowed and unused edges are not shown")
    assert {edge.outcome for edge in graph.edges} == {"allowed"}


def test_overlay_needs_labels_that_the_policy_reads() -> None:
    with pytest.raises(ValueError, match="make it with labels"):
        overlay(from_trace(CALLS), [])
    with pytest.raises(ValueError, match=r"labels that the policy knows \(--labels\)"):
        overlay(from_trace(CALLS, labels=Labels()), [])


@pytest.mark.parametrize(("rule", "denied"), [("mi_x { go }", []), ("mi_x { stop }", ["mi_x:go"])])
def test_overlay_of_methods(rule: str, denied: list[str]) -> None:
    graph = from_trace(CALLS, labels=Labels())
    graph.edges[0].asks.append(Ask("rules/a", "rules/b", "mi_x", "go", 1))
    graph.classes["mi_x"] = ("stop", "go")
    policy = f"allow * * mach_port {{ * }}; allow * * {rule};"
    (edge,) = overlay(graph, [Rules.from_text(policy)]).edges
    assert [denial.permission for denial in edge.denied] == denied


def test_the_policy_of_a_run_refuses_nothing_of_what_it_allowed() -> None:
    policy = "allow * * mach_port { * }; allow a b mi_printing { print };"
    with Kernel(policies=[Rules.from_text(policy)]) as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("b", "rules/b").allocate_port()
        inbox.serve(Interface("printing", 1200, ["cancel", "print"]))
        inbox.make_send(kernel.create_task("a", "rules/a")).send(b"", msgh_id=1201)
        graph = from_audit([kernel.audit.batch(kernel.audit.drain())])
    assert graph.classes["mi_printing"][:2] == ("cancel", "print")
    (edge,) = overlay(graph, [Rules.from_text(policy)]).edges
    assert (edge.outcome, edge.denied) == ("allowed", [])
    more = policy.replace("{ print }", "{ * }")
    (edge,) = overlay(graph, [Rules.from_text(more)], unused=True).edges
    assert (edge.outcome, edge.idle) == ("allowed", ["mi_printing:cancel"])
    assert (
        "allowed, not called: mi_printing:cancel" in tooltips(Graph("", graph.nodes, [edge]))["e0"]
    )
    (edge,) = overlay(graph, [Rules.from_text(policy)], unused=True).edges
    assert edge.idle == []
    (edge,) = overlay(graph, [Rules.from_text(policy.replace("print }", "cancel }"))]).edges
    assert (edge.outcome, [each.permission for each in edge.denied]) == (
        "would_deny", ["mi_printing:print"]
    )  # fmt: skip
