# SPDX-License-Identifier: BSD-2-Clause
"""Watches a live system for what nobody does, until its standard input ends; says when it began."""

import sys
import threading

from pympi.inspect import Connection

if __name__ == "__main__":
    with Connection(sys.argv[1]) as connection:
        batches = connection.watch_batches("task=nobody")
        next(batches)
        print("watching", flush=True)
        threading.Thread(target=list, args=(batches,), daemon=True).start()
        sys.stdin.read()
