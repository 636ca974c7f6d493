/* SPDX-License-Identifier: BSD-2-Clause */
// Two tasks, a port, and a policy in C++: the client may send to the server, and not the reverse.
#include <pympi.hpp>

#include <iostream>

int main()
{
    auto kernel = pympi::kernel::create();
    auto server = kernel.create_task("server", "demo/server"), client = kernel.create_task("client", "demo/client");
    auto inbox = server.allocate_port();        // a receive right
    auto outbox = inbox.make_send(client);      // a send right, in the client's space
    auto back = client.allocate_port();
    auto answers = back.make_send(server);

    kernel.set_decider([&](pympi::questions asked, uint32_t) {
        for (pm_query &query : asked) {
            bool sends_to_client = query.ssid == server.sid() && query.tsid == client.sid();
            query.allowed = sends_to_client ? PM_MACH_PORT__recv : ~0u;
        }
        return true;
    });
    kernel.set_policy(PM_POLICY_LOADED);

    outbox.send("page 1", 100);
    auto message = inbox.receive();
    std::cout << "task " << message.sender() << " sent " << message.view() << '\n';
    try {
        answers.send("done", 200);
    } catch (const pympi::access_denied &denied) {
        std::cout << "refused: " << denied.what() << '\n';
    }
    std::cout << "faults: " << (kernel.verify().empty() ? "none" : kernel.verify()) << '\n';
}
