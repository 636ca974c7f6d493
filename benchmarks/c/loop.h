/* SPDX-License-Identifier: BSD-2-Clause */
/* One loop in several languages: 64 bytes are sent and received so many times. Returns how many pairs went through. */
#ifndef LOOP_H
#define LOOP_H
#include "pympi.h"

struct loop {
    struct pm_task *sender, *receiver;
    uint32_t right, port;
};

#ifdef __cplusplus
extern "C"
#endif
__attribute__((visibility("default"))) int64_t loop_run(const struct loop *loop, int64_t pairs);
#endif
