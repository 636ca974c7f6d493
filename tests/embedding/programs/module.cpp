/* SPDX-License-Identifier: BSD-2-Clause */
/* A module for Python, by pybind11: C++ on kernels of Python, and Python on kernels of C++. */
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>

#include <pympi.hpp>

namespace py = pybind11;

static pympi::kernel kernel_of(const py::object &kernel)
{
    return pympi::kernel::borrow(py::cast<std::uintptr_t>(kernel.attr("address")));
}

/* Sends and receives so many messages between two tasks of its own, under the policy of the kernel. Gives the bytes that came. */
static size_t run(const py::object &python_kernel, const std::string &from, const std::string &to, int messages)
{
    auto kernel = kernel_of(python_kernel);
    auto sender = kernel.create_task("sender", from), receiver = kernel.create_task("receiver", to);
    auto inbox = receiver.allocate_port();
    auto outbox = inbox.make_send(sender);
    py::gil_scoped_release others_may_run;
    char body[64] = "x";
    size_t bytes = 0;
    for (int i = 0; i < messages; i++) {
        outbox.send({body, sizeof body}, i);
        bytes += inbox.receive(body, sizeof body);
    }
    return bytes;
}

/* A kernel of C++, with an echo that a handler of C++ makes. */
struct simulation {
    pympi::kernel kernel = pympi::kernel::create();
    pympi::task task = kernel.create_task("echo", "rules/echo");
    pympi::receive_right port = task.allocate_port();
    int refused = 0;

    simulation()
    {
        port.handle([](pympi::message &request) { request.reply(request.view(), request.id() + 100); });
    }
    std::string ask(const std::string &question)
    {
        auto client = kernel.create_task("client", "rules/client");
        auto answers = client.allocate_port();
        auto right = port.make_send(client);
        try {
            return std::string(right.call(question, 1, answers).view());
        } catch (const pympi::access_denied &denied) {
            refused += denied.denial.operation == PM_OP_SEND;
            throw;
        }
    }
};

PYBIND11_MODULE(module, m)
{
    py::register_exception<pympi::access_denied>(m, "Denied", PyExc_PermissionError);
    m.def("run", run);
    m.def("decide_with", [](const py::object &kernel, uint32_t allowed) {
        auto borrowed = kernel_of(kernel);
        /* By a function of C, with its context: it outlives this object, which a std::function would not. */
        borrowed.set_decider(
            [](void *context, pm_query *queries, size_t count, uint32_t) {
                for (size_t i = 0; i < count; i++)
                    queries[i].allowed = static_cast<uint32_t>(reinterpret_cast<std::uintptr_t>(context));
                return 0;
            },
            reinterpret_cast<void *>(std::uintptr_t{allowed}));
        borrowed.set_policy(PM_POLICY_LOADED);
    });
    py::class_<simulation>(m, "Simulation")
        .def(py::init())
        .def_property_readonly("address", [](const simulation &s) { return reinterpret_cast<std::uintptr_t>(s.kernel.get()); })
        .def_property_readonly("task", [](const simulation &s) { return reinterpret_cast<std::uintptr_t>(s.task.get()); })
        .def_readonly("refused", &simulation::refused)
        .def("ask", &simulation::ask)
        .def("faults", [](const simulation &s) { return s.kernel.verify(); });
}
