/* SPDX-License-Identifier: BSD-2-Clause */
/* As a program in C++ would have it: rights as objects, errors as exceptions. */
#include "loop.h"
#include "pympi.hpp"

int64_t loop_run(const struct loop *loop, int64_t pairs)
{
    char body[64] = "as long as a message of the budget: sixty-four bytes, all told.";
    pympi::send_right outbox(loop->sender, loop->right);
    pympi::receive_right inbox(loop->receiver, loop->port);
    int64_t done = 0;

    try {
        for (int64_t i = 0; i < pairs; i++) {
            outbox.send({body, sizeof body}, static_cast<int32_t>(i));
            done += inbox.receive(body, sizeof body) == sizeof body;
        }
    } catch (const pympi::error &) {
    }
    outbox.release(); /* they are the caller's */
    inbox.release();
    return done;
}
