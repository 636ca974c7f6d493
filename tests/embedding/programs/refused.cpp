/* SPDX-License-Identifier: BSD-2-Clause */
/* Compiled with the header of another version: nothing is made, nothing is borrowed. */
#include <pympi.hpp>

#include "check.hpp"

template <class Make> static void refused(Make make)
{
    try {
        make();
        CHECK(!"refused");
    } catch (const pympi::error &error) {
        CHECK(error.code() == PM_ABI_MISMATCH);
        std::puts(error.what());
    }
}

int main()
{
    pm_kernel *nothing = nullptr;
    CHECK(pm_kernel_create(nullptr, &nothing) == PM_ABI_MISMATCH && !nothing);
    CHECK((pm_kernel_create)(nullptr, &nothing) == 0);     /* of a library, by who has no header */
    refused([] { pympi::kernel::create(); });
    refused([&] { pympi::kernel::borrow(nothing); });
    pm_kernel_destroy(nothing);
}
