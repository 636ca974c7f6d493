# SPDX-License-Identifier: BSD-2-Clause
"""The table: what is compared with what, and the budget. Ratios; below is better.

`must` and `aim` are the budgets of the project. A row without them is there to explain another.
What has to be done within a given time stands beside that time.
"""

from pympi.bench.cases import SCALE
from pympi.bench.harness import Row
from pympi.bench.threads import CORES

PAIR = "C send + receive, 64 B"
ALL = max(2, CORES)
"""Threads of the rows about kernels side by side: as many as there are cores."""
FLOOR = "two calls, two copies, two lock pairs"
BOUND = "Python sender() + receiver()"

ROWS = [
    Row("0", "control", f"{PAIR}: control", "itself"),
    Row("1", "checks", f"{PAIR}: all checks, one pair", "unchecked", 1.15, 1.08),
    Row("1i", "checks_instructions", "the same in instructions", "unchecked"),
    Row(
        "2",
        "checks_many",
        f"{PAIR}: all checks, 1,024 ports x 16 tasks at random",
        "unchecked, same pattern",
        1.50,
        1.25,
    ),
    Row("3", "audit_off", "audit built in, nothing selected", "no audit in the core", 1.02, 1.00),
    Row(
        "3i",
        "audit_off_instructions",
        "the same in instructions",
        "no audit in the core",
        1.02,
        1.00,
    ),
    Row(
        "3l", "select_label", "recorded of a label that nobody here bears", "nothing selected", 1.02
    ),
    Row("3li", "select_label_instructions", "the same in instructions", "nothing selected"),
    Row("3t", "select_task", "recorded of a task that is not here", "nothing selected"),
    Row(
        "4",
        "audit_recording",
        "audit of every operation, drained between timings",
        "nothing selected",
        2.3,
        1.7,
    ),
    Row("4d", "audit_drained", "the same, draining included", "nothing selected"),
    Row("4f", "audit_dropped", "the same, the ring full, dropped", "nothing selected"),
    Row("4s", "audit_sampled", "sampled to 1,000 records a second, drained", "nothing selected"),
    Row("4sa", "audit_sampled_all", "the same", "every operation, drained"),
    Row("w", "watch", "a watch that leaves everything out, all checks", "no watch", 1.02, 1.00),
    Row("wu", "watch_unchecked", "the same, unchecked", "no watch"),
    Row("wa", "watch_everything", "a watch of everything, all checks, read as well", "no watch"),
    Row("wl", "watch_lost", "the same, nobody reads", "no watch"),
    Row(
        "wp", "watch_attached", "Python send + receive, `pympi watch task=nobody`", "no watch", 1.02
    ),
    Row("5", "trace", "ipctrace on, all checks", "off", 1.10, 1.05),
    Row("5u", "trace_unchecked", "ipctrace on, unchecked", "off"),
    Row("6", "floor", f"{PAIR}: unchecked", FLOOR, 1.6, 1.2),
    Row("6s", "floor_sized", f"{PAIR}: unchecked", f"{FLOOR}, sizes at run time"),
    Row("6m", "whole", f"{PAIR}: received as a message, and freed", "received as bytes"),
    Row("6p", "slow_path", f"{PAIR}: without fast paths", "with"),
    Row("7", "peer/deque", f"{BOUND} -> bytes", "deque append + popleft", 8, 5),
    Row(
        "8",
        "peer-methods/deque",
        "Python send + receive -> Message",
        "deque append + popleft",
        20,
        12,
    ),
    Row("9z", "peer/zeromq", BOUND, "pyzmq inproc", 0.6, 0.4),
    Row("9q", "peer/queue", BOUND, "queue.Queue", 0.25, 0.15),
    Row("9s", "peer/simpy", BOUND, "SimPy Store", 0.10, 0.05),
    Row("10d", "te_decide", "a decision of te, 10,000 rules", "of a module without opinion"),
    Row(
        "10m",
        "te_miss",
        "a miss through te, 10,000 rules, in Python",
        "through a module without opinion",
    ),
    Row(
        "11",
        "te_miss_libsepol",
        "a miss decided natively, te, 10,000 rules",
        "libsepol compute_av, same policy, in C",
        3,
        1,
    ),
    Row("11p", "te_miss_python_libsepol", "a miss through te, in Python", "the same"),
    Row("11d", "te_decide_libsepol", "a decision of te, 10,000 rules", "the same"),
    Row(
        "11m", "mls_miss_many", "misses over 100,000 labels, mls, a category set each", "in Python"
    ),
    Row("12", "te_miss_bound", "a miss through te, 10,000 rules, in Python", "20 us", 1),
    Row("13", "learn_bound", "learning from 10 million audit records", "10 s", 1),
    Row("14", "query_bound", "policy query, 150,000 rules, compiled before", "1 s", 1),
    Row("14f", "query_first_bound", "policy query, 150,000 rules, compiled now", "1 s", 1),
    Row("15", "look_up_bound", "a look-up through the name server, 1 name", "12 us", 1),
    Row("15m", "look_up_many_bound", "the same, a million names", "12 us", 1),
    Row("16", "sink_bound", "a million audit records through a feed to a file", "0.5 s", 1),
    Row("17", "loop_cpp", f"{PAIR}: a loop in C++, by pympi.hpp", "the same in C", 1.15, 1.05),
    Row("17n", "loop_numba", f"{PAIR}: a loop in Numba", "the same in C", 1.15, 1.05),
    Row("18", "batch_rows", "send_many + receive_many of 256", "the same in C", 1.15, 1.08),
    Row("19", "batch_submit", "submit of 256 operations of many tasks", "the same in C", 1.4, 1.2),
    Row("20", "batch_checks", "check_many, a check", "the same in C", 1.3, 1.1),
    Row("20c", "check/casbin", "checker()", "casbin enforce, 100 rules", 1 / 500, 1 / 1000),
    Row("21", "threads/call", "call and reply, two threads", "queue.SimpleQueue", 0.4, 0.2),
    Row("21b", "threads/bound", "the same by sender() and receiver()", "queue.SimpleQueue"),
    Row("22", "threads/busy", f"{BOUND} beside a busy thread", "alone", 1.5, 1.2),
    Row("23", "city_memory", "memory of a port with one name, bytes", "a byte", 192, 128),
    Row(
        "24",
        "city_bare",
        "1,000,000 ports x 100,000 tasks, random sends in C",
        "a bare loop touching the same lines",
        1.5,
        1.2,
    ),
    Row("24l", "city_locked", "the same", "that loop with an atomic operation before each"),
    Row("24h", "city_huge", "the same", "the bare loop on huge pages"),
    Row("24c", "city_chase", "the same", "three looks at memory, each told by the one before"),
    Row("25", "city_submit", "the same by submit", "one at a time in C", 0.6, 0.4),
    Row(
        "26",
        f"kernels/c-{ALL}",
        f"{PAIR}: all checks, a kernel in each of {ALL} threads at once, by the clock",
        "one thread at a time",
        SCALE,
    ),
    Row("26c", f"kernels/compute-{ALL}", "the same, threads that compute: control", "the same"),
    Row("26s", f"kernels/submit-{ALL}", "the same in Python, submit of 1,024", "the same"),
    Row("26m", f"kernels/submit-more-{ALL}", "the same in Python, submit of 4,096", "the same"),
    Row("26p", f"kernels/callables-{ALL}", f"the same, {BOUND}", "the same"),
]
