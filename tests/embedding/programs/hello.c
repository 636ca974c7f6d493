/* SPDX-License-Identifier: BSD-2-Clause */
/* The least program: two tasks, a port, a message. Ends with the Mach code of what failed, in words on stderr. */
#include <pympi.h>
#include <stdio.h>
#include <string.h>

static int must(const char *what, int64_t result)
{
    if (result != 0)
        fprintf(stderr, "%s: %#llx\n", what, (unsigned long long)result);
    return result != 0;
}

int main(void)
{
    struct pm_kernel *kernel;
    struct pm_task *server, *client;
    char body[16];
    int code = pm_kernel_create(&(struct pm_config){ .clock = PM_CLOCK_SIMULATED, .seed = 7 }, &kernel);

    if (code == PM_ABI_MISMATCH)
        fprintf(stderr, "this program is for version %d, the library has %u\n", PM_ABI_VERSION, pm_abi_version());
    if (must("kernel", code))
        return 2;
    int64_t sid = pm_sid_intern(kernel, NULL, "-", 1);
    if (must("server", pm_task_create(kernel, NULL, "server", (uint32_t)sid, NULL, NULL, &server)) ||
        must("client", pm_task_create(kernel, server, "client", (uint32_t)sid, NULL, NULL, &client)))
        return 1;
    int64_t inbox = pm_port_allocate(server, server, MACH_PORT_RIGHT_RECEIVE, 0);
    int64_t outbox = pm_port_transfer(server, (uint32_t)inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    if (must("send", pm_send(client, (uint32_t)outbox, "hello", 5, 100, NULL)))
        return 1;
    int64_t size = pm_receive(server, (uint32_t)inbox, body, sizeof body, NULL);
    if (must("receive", size != 5 || memcmp(body, "hello", 5)) || must("verify", pm_kernel_verify(kernel, NULL, 0)))
        return 1;
    pm_sid_release(kernel, (uint32_t)sid);
    pm_task_release(client);
    pm_task_release(server);
    pm_kernel_destroy(kernel);
    printf("%.*s\n", (int)size, body);
    return 0;
}
