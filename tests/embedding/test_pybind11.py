# SPDX-License-Identifier: BSD-2-Clause
"""C++ through pybind11: on a kernel of Python under a policy in Python, and the reverse."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Any

import pytest
from embedding.building import PROGRAMS, need, run

import pympi
from pympi import Kernel, embedding
from pympi._ffi import lib
from pympi.policy import PolicyModule, Rules

RULES = """
    allow b b mach_port { make_send use_recv };
    allow a b mach_port { send copy_send hold_send };
    allow b a mach_port { recv };
"""
ECHO = """
    allow echo echo mach_port { make_send use_recv set_attributes move_send_once };
    allow echo client mach_port { recv hold_send_once send move_send_once };
    allow client echo mach_port { hold_send send copy_send recv };
    allow client client mach_port { use_recv make_send_once set_reply };
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """module.cpp, which is not told where the library is: it is there since pympi was imported."""
    pybind11 = pytest.importorskip("pybind11", reason="no pybind11 here")
    target = tmp_path_factory.mktemp("module") / f"module{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = (pybind11.get_include(), sysconfig.get_path("include"), pympi.get_include())
    flags = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread")
    where = Path(pympi.get_library()).parent
    run(
        need("g++"), *flags, *(f"-I{path}" for path in includes), PROGRAMS / "module.cpp",
        "-o", target, f"-L{where}", "-lpympi",
    )  # fmt: skip
    spec = importlib.util.spec_from_file_location("module", target)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_cpp_sends_under_a_policy_of_python(module: Any) -> None:
    with Kernel(policies=[Rules.from_text(RULES)]) as kernel:
        assert module.run(kernel, "rules/a", "rules/b", 1000) == 64000
        assert kernel.stats()["decider_calls"] < 20
        assert kernel.stats()["tasks"] == 2  # they live until they are terminated, or the kernel is
        with pytest.raises(module.Denied, match="make_send: KERN_NO_ACCESS"):
            module.run(kernel, "rules/b", "rules/a", 1)
        kernel.verify()


def test_what_python_decides_may_raise_and_be_slow(module: Any) -> None:
    class Broken(PolicyModule):
        name = "broken"

        def decide(self, source: str, target: str, tclass: Any) -> Any:
            raise ZeroDivisionError("a policy's own trouble")

    with Kernel(policies=[Broken()]) as kernel:
        with pytest.raises(module.Denied):
            module.run(kernel, "-", "-", 1)
        assert kernel.policies.failures["broken"]
        kernel.verify()


def test_python_runs_beside_a_loop_in_cpp(module: Any) -> None:
    """The loop has given the GIL up; a policy module in Python takes it when it is asked."""
    with Kernel(policies=[Rules.from_text(RULES)]) as kernel:
        arguments = (kernel, "rules/a", "rules/b", 20000)
        threads = [threading.Thread(target=module.run, args=arguments) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            kernel.policies.renew()  # all that was decided is asked again
        for thread in threads:
            thread.join()
        assert kernel.stats()["received"] == 40000
        kernel.verify()


def test_a_decider_of_cpp_on_a_kernel_of_python(module: Any) -> None:
    with Kernel() as kernel:
        module.decide_with(kernel, 0xFFFFFFFF)
        assert module.run(kernel, "-", "-", 10) == 640
        module.decide_with(kernel, 0)
        with pytest.raises(module.Denied):
            module.run(kernel, "-", "-", 10)
        kernel.verify()


def test_a_closed_kernel_has_no_address(module: Any) -> None:
    kernel = Kernel()
    kernel.close()
    with pytest.raises(pympi.KernelClosed):
        module.run(kernel, "-", "-", 1)


def test_a_policy_of_python_on_a_kernel_of_cpp(module: Any) -> None:
    simulation = module.Simulation()
    assert simulation.ask("before") == "before"
    with Kernel.borrow(simulation.address, [Rules.from_text(ECHO)]) as kernel:
        assert simulation.ask("under a policy") == "under a policy"
        client = kernel.create_task("python", "rules/client")
        with kernel.task_at(simulation.task) as echo:
            right = echo.receive_right(0x103).make_send(client)
            assert right.call(b"from Python", msgh_id=1).body == b"from Python"
            kernel.policies.replace("rules", Rules.from_text(ECHO.replace("send copy_send", "")))
            with pytest.raises(module.Denied, match="call: MACH_SEND_INVALID_DEST"):
                simulation.ask("refused")
            assert simulation.refused == 1
            kernel.policies.unload("rules")
    assert simulation.faults() == ""


def test_cmake_builds_modules(tmp_path: Path) -> None:
    """find_package(pympi) beside find_package(pybind11), as an extension's project has it."""
    pybind11 = pytest.importorskip("pybind11", reason="no pybind11 here")
    cmake = need("cmake")
    need("g++")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(module LANGUAGES CXX)\n"
        "find_package(pybind11 CONFIG REQUIRED)\nfind_package(pympi 0.1 CONFIG REQUIRED)\n"
        "pybind11_add_module(module NO_EXTRAS module.cpp)\n"
        "target_link_libraries(module PRIVATE pympi::pympi)\n"
    )
    (tmp_path / "module.cpp").write_text(
        "#include <pybind11/pybind11.h>\n#include <pympi.hpp>\n"
        'PYBIND11_MODULE(module, m) { m.def("abi", pm_abi_version); }\n'
    )
    run(
        cmake, "-S", tmp_path, "-B", tmp_path / "build", "-DPYBIND11_FINDPYTHON=ON",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpympi_DIR={embedding.get_cmake_dir()}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    )  # fmt: skip
    run(cmake, "--build", tmp_path / "build")
    program = "import module; print(module.abi())"
    printed = run(sys.executable, "-c", program, cwd=tmp_path / "build")
    assert printed == f"{lib.PM_ABI_VERSION}\n"
