/* SPDX-License-Identifier: BSD-2-Clause */
// The system in C++, on a kernel, under a policy, and with tasks that were made in Python: see world.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pympi.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <queue>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace py = pybind11;

namespace {

template <class T> using array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// Vigna's splitmix64: the same bits as in world.py.
uint64_t chance(uint64_t &state)
{
    uint64_t bits = state += 0x9E3779B97F4A7C15;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
    return bits ^ (bits >> 31);
}

double delay(const std::vector<double> &times, uint64_t bits)
{
    return times[bits >> 52] + static_cast<double>(bits & ((uint64_t{1} << 40) - 1)) * 0x1p-60;
}

constexpr int32_t request_id = 100, answer_id = 200;
struct head { uint64_t number, client; };

struct client {
    pympi::receive_right answers;
    std::vector<pympi::send_right> rights;
    uint64_t chance, asked;
};
struct service {
    pympi::receive_right inbox;
    pympi::message request;                     // the one that is served
    uint64_t chance;
};
enum class kind { thought, served };
struct event {
    double time;
    uint64_t order;
    kind what;
    size_t who;
    bool operator>(const event &other) const { return std::tie(time, order) > std::tie(other.time, other.order); }
};

class simulation {
public:
    explicit simulation(const py::object &world)
        : kernel_(pympi::kernel::borrow(py::cast<std::uintptr_t>(world.attr("kernel").attr("address")))),
          think_(py::cast<std::vector<double>>(world.attr("think"))),
          serve_(py::cast<std::vector<double>>(world.attr("serve"))),
          requests_(py::cast<uint64_t>(world.attr("size").attr("requests")))
    {
        auto chances = py::cast<array<uint64_t>>(world.attr("chances"));
        auto answers = py::cast<array<uint32_t>>(world.attr("answers")), inboxes = py::cast<array<uint32_t>>(world.attr("inboxes"));
        auto rights = py::cast<array<uint32_t>>(world.attr("rights"));
        py::ssize_t number = 0;
        for (auto task : world.attr("client_tasks")) {
            pm_task *handle = task_of(task);
            clients_.push_back({{handle, answers.at(number)}, {}, chances.at(number), 0});
            for (py::ssize_t to = 0; to < inboxes.size(); to++) clients_.back().rights.emplace_back(handle, rights.at(number, to));
            number++;
        }
        for (py::ssize_t at = 0; at < inboxes.size(); at++)
            services_.push_back({{task_of(world.attr("service_tasks")[py::int_(at)]), inboxes.at(at)}, {}, chances.at(number + at)});
    }

    // The rights are Python's, and stay in the tasks' spaces.
    ~simulation()
    {
        for (auto &each : clients_) {
            each.answers.release();
            for (auto &right : each.rights) right.release();
        }
        for (auto &each : services_) each.inbox.release();
    }

    std::tuple<uint64_t, uint64_t, uint64_t, uint64_t, double> run()
    {
        for (size_t who = 0; who < clients_.size(); who++) think(who);
        while (!events_.empty()) {
            event next = events_.top();
            events_.pop();
            now_ = next.time;
            must(kernel_.try_set_time(static_cast<uint64_t>(std::llrint(now_ * 1e9))));
            count_++;
            if (next.what == kind::thought) ask(next.who);
            else answer(next.who);
        }
        return {count_, answered_, denied_, full_, now_};
    }

private:
    static pm_task *task_of(py::handle task)
    {
        return reinterpret_cast<pm_task *>(py::cast<std::uintptr_t>(task.attr("address")));
    }

    static void must(std::error_code code)
    {
        if (code) throw pympi::error(code.value(), "simulation");
    }

    void later(double seconds, kind what, size_t who) { events_.push({now_ + seconds, order_++, what, who}); }

    void think(size_t who)
    {
        if (clients_[who].asked < requests_) later(delay(think_, chance(clients_[who].chance)), kind::thought, who);
    }

    // A client has thought: it sends a request, which the service takes if it is idle.
    void ask(size_t who)
    {
        client &asking = clients_[who];
        uint64_t bits = chance(asking.chance);
        size_t to = static_cast<size_t>(bits >> 32) % services_.size();
        head first{asking.asked++, who};
        std::memcpy(body_.data(), &first, sizeof first);
        pm_send_spec spec{};
        spec.body = body_.data();
        spec.size = sizeof first + (bits & 255);
        spec.msgh_id = request_id;
        spec.reply = asking.answers.name();
        spec.reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE;
        if (auto code = asking.rights[to].try_send(spec)) {
            (code == MACH_SEND_TIMED_OUT ? full_ : denied_)++;
            think(who);
        } else if (!services_[to].request) {
            begin(to);
        }
    }

    // A service is done: it answers, the client takes that, and the service its next request.
    void answer(size_t from)
    {
        service &serving = services_[from];
        head first{};
        std::memcpy(&first, serving.request.body().data, sizeof first);
        serving.request.reply(pympi::bytes_of(first), answer_id);
        serving.request.close();
        auto answer = clients_[first.client].answers.receive();
        if (head got{}; !answer.read(got) || got.number + 1 != clients_[first.client].asked)
            throw std::runtime_error("the answer is to another request");
        answered_++;
        think(first.client);
        begin(from);
    }

    void begin(size_t who)
    {
        service &serving = services_[who];
        auto next = serving.inbox.try_receive();
        if (!next) return;
        serving.request = std::move(*next);
        later(delay(serve_, chance(serving.chance)), kind::served, who);
    }

    pympi::kernel kernel_;
    std::vector<double> think_, serve_;
    uint64_t requests_;
    std::vector<client> clients_;
    std::vector<service> services_;
    std::priority_queue<event, std::vector<event>, std::greater<>> events_;
    std::array<char, 512> body_{};
    uint64_t order_ = 0, count_ = 0, answered_ = 0, denied_ = 0, full_ = 0;
    double now_ = 0;
};

} // namespace

PYBIND11_MODULE(simulation, module)
{
    module.def("run", [](const py::object &world) {
        simulation system(world);
        py::gil_scoped_release others_may_run;      // a policy in Python takes the GIL when it is asked
        return system.run();
    });
}
