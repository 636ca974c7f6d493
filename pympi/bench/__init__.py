# SPDX-License-Identifier: BSD-2-Clause
"""What a check costs here: the cases of `pympi bench`, and how they are measured.

    runs       which rows there are, how they are run, what changed since an earlier run
    plots      pictures of a run, by matplotlib
    cases      the tables: what is measured beside what
    kernels    kernels side by side, each in a thread of its own
    threads    the cases of two threads
    loops      how messages go: bound callables, methods, batches, C, Numba, pybind11
    compiled   the loops in C and C++, compiled here
    systems    a kernel with tasks and ports as a setting says, and the policies it may have
    peers      what else passes messages, or decides
    harness    paired rounds, each case in a process of its own

The package is no part of what users call from Python: `pympi bench` is.
"""
