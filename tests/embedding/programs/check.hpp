/* SPDX-License-Identifier: BSD-2-Clause */
/* What the programs here complain with: a line on stderr, and the end. */
#pragma once
#include <cstdio>
#include <cstdlib>

#define CHECK(what)                                                                                                                \
    do {                                                                                                                           \
        if (!(what)) {                                                                                                             \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                                \
            std::exit(1);                                                                                                          \
        }                                                                                                                          \
    } while (0)
