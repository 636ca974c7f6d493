# SPDX-License-Identifier: BSD-2-Clause
"""Numba calls the core by function pointers of cffi: compiled code, without Python in the loop."""

from __future__ import annotations

from typing import Any

import cffi
import numpy as np
import pytest

import pympi
from pympi import Kernel
from pympi.policy import Rules

# Addresses are numbers to Numba; to the machine they are the same.
CALLS = """
    int pm_send(uint64_t task, uint32_t dest, uint64_t body, uint64_t size, int32_t msgh_id,
                uint64_t wait);
    int64_t pm_receive(uint64_t task, uint32_t name, uint64_t body, uint64_t capacity,
                       uint64_t wait);
"""
RULES = """
    allow a a mach_port { make_send use_recv };
    allow b a mach_port { send copy_send hold_send recv };  allow a b mach_port { recv };
"""


@pytest.fixture(scope="module")
def exchange() -> Any:
    """A loop in Numba: counts messages that were sent and received, and those that were refused."""
    numba = pytest.importorskip("numba", reason="no numba here")
    ffi = cffi.FFI()
    ffi.cdef(CALLS)
    core = ffi.dlopen(pympi.get_library())
    send, receive = core.pm_send, core.pm_receive

    @numba.njit
    def loop(
        sender: int, right: int, receiver: int, port: int, body: Any, times: int
    ) -> tuple[int, int]:
        done = refused = 0
        data = body.ctypes.data
        for i in range(times):
            body[0] = i
            if send(sender, right, data, body.nbytes, i, 0) != 0:
                refused += 1
            elif receive(receiver, port, data, body.nbytes, 0) == body.nbytes and body[0] == i:
                done += 1
        return done, refused

    return loop


def test_numba_sends_under_a_policy_of_python(exchange: Any) -> None:
    with Kernel(policies=[Rules.from_text(RULES)]) as kernel:
        server, client = kernel.create_task("a", "rules/a"), kernel.create_task("b", "rules/b")
        inbox = server.allocate_port()
        right = inbox.make_send(client)
        body = np.zeros(8, np.int64)
        ends = (client.address, right.name, server.address, inbox.name)
        asked = kernel.stats()["decider_calls"]
        assert exchange(*ends, body, 1000) == (1000, 0)
        assert kernel.stats()["decider_calls"] - asked <= 3
        kernel.policies.replace("rules", Rules.from_text(RULES.replace("send copy_send", "")))
        assert exchange(*ends, body, 100) == (0, 100)
        assert kernel.stats()["sent"] == 1000
        kernel.verify()
