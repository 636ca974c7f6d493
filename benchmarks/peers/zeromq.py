# SPDX-License-Identifier: BSD-2-Clause
"""pyzmq: a PAIR of sockets on an inproc transport, both in one thread."""

import itertools
from time import thread_time_ns

from benchmarks.harness import Skip, Timed
from benchmarks.peers import BODY


def inproc() -> Timed:
    """Return send and recv over inproc.

    Raises:
        Skip: pyzmq is not installed.
    """
    try:
        import zmq
    except ImportError:
        raise Skip("pyzmq is not installed: pip install 'pympi-mach[bench]'") from None
    context = zmq.Context()
    server, client = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    server.bind("inproc://pair")
    client.connect("inproc://pair")
    send, receive = client.send, server.recv

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in itertools.repeat(None, pairs):
            send(BODY)
            receive()
        return thread_time_ns() - start

    return run
