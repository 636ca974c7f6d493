/* SPDX-License-Identifier: BSD-2-Clause */
#include "loop.h"

int64_t loop_run(const struct loop *loop, int64_t pairs)
{
    char body[64] = "as long as a message of the budget: sixty-four bytes, all told.";
    int64_t done = 0;

    for (int64_t i = 0; i < pairs; i++) {
        if (pm_send(loop->sender, loop->right, body, sizeof body, (int32_t)i, NULL) != 0)
            break;
        done += pm_receive(loop->receiver, loop->port, body, sizeof body, NULL) == (int64_t)sizeof body;
    }
    return done;
}
