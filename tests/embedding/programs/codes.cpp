/* SPDX-License-Identifier: BSD-2-Clause */
/* Without exceptions: codes are all there is. */
#include <pympi.hpp>

#include "check.hpp"

int main()
{
    auto kernel = pympi::kernel::try_create();
    if (!kernel) {
        std::fprintf(stderr, "%s\n", kernel.error().message().c_str());
        return 2;
    }
    auto server = kernel->try_create_task("server"), client = kernel->try_create_task("client");
    CHECK(server && client);
    auto inbox = server->try_allocate_port();
    auto outbox = inbox->try_make_send(*client);
    CHECK(inbox && outbox && !outbox->try_send("hello", 1));
    auto message = inbox->try_receive();
    CHECK(message && message->view() == "hello");
    CHECK(inbox->try_receive().error() == MACH_RCV_TIMED_OUT);
    kernel->try_set_decider([](pympi::questions, uint32_t) { return false; });
    CHECK(!kernel->try_set_policy(PM_POLICY_LOADED));
    CHECK(outbox->try_send("refused") == MACH_SEND_INVALID_DEST);
    pm_denial denial;
    CHECK(client->take_denial(denial) && denial.tclass == PM_CLASS_MACH_PORT);
    std::puts("hello");
}
