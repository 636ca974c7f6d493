// SPDX-License-Identifier: BSD-2-Clause
// The core through pybind11: bytes in, bytes out, as a binding written by hand would have it.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

namespace py = pybind11;

using send_call = int (*)(void *, uint32_t, const void *, uint64_t, int32_t, const void *);
using receive_call = int64_t (*)(void *, uint32_t, void *, uint64_t, const void *);

class Way {
public:
    Way(uintptr_t send, uintptr_t receive, uintptr_t sender, uintptr_t receiver, uint32_t to, uint32_t name, uint64_t size)
        : send_(reinterpret_cast<send_call>(send)), receive_(reinterpret_cast<receive_call>(receive)),
          sender_(reinterpret_cast<void *>(sender)), receiver_(reinterpret_cast<void *>(receiver)), to_(to), name_(name),
          room_(size, '\0') {}

    void send(const py::bytes &body) {
        char *data;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(body.ptr(), &data, &size) != 0) throw py::error_already_set();
        if (send_(sender_, to_, data, static_cast<uint64_t>(size), 0, nullptr) != 0) throw std::runtime_error("not sent");
    }

    py::bytes receive() {
        int64_t size = receive_(receiver_, name_, room_.data(), room_.size(), nullptr);
        if (size < 0) throw std::runtime_error("not received");
        return py::bytes(room_.data(), static_cast<size_t>(size));
    }

private:
    send_call send_;
    receive_call receive_;
    void *sender_, *receiver_;
    uint32_t to_, name_;
    std::string room_;
};

PYBIND11_MODULE(pympi_bench_loop, module) {
    py::class_<Way>(module, "Way")
        .def(py::init<uintptr_t, uintptr_t, uintptr_t, uintptr_t, uint32_t, uint32_t, uint64_t>())
        .def("send", &Way::send)
        .def("receive", &Way::receive);
}
