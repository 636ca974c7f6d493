# SPDX-License-Identifier: BSD-2-Clause
"""The name server: who may be found by whom, under which name.

`kernel.bootstrap` is a kernel's name server, `task.bootstrap` how a task asks it. The protocol is
that of Mach's bootstrap server, routines 400 to 410.
"""

from .audit import sentence
from .client import Bootstrap
from .launcher import Launch
from .protocol import (
    BOOTSTRAP,
    BootstrapError,
    Code,
    NameInUse,
    NotPrivileged,
    ServiceActive,
    Status,
    UnknownService,
)
from .server import Limits, NameServer
from .service_contexts import ServiceContexts
from .services import Context, Owner, Server, Service, ServiceInfo, State

__all__ = [
    "BOOTSTRAP",
    "Bootstrap",
    "BootstrapError",
    "Code",
    "Context",
    "Launch",
    "Limits",
    "NameInUse",
    "NameServer",
    "NotPrivileged",
    "Owner",
    "Server",
    "Service",
    "ServiceActive",
    "ServiceContexts",
    "ServiceInfo",
    "State",
    "Status",
    "UnknownService",
    "sentence",
]
