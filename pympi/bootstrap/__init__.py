# SPDX-License-Identifier: BSD-2-Clause
"""The name server: who may be found by whom, under which name.

`kernel.bootstrap` is a kernel's name server, `task.bootstrap` how a task asks it. The protocol is
that of Mach's bootstrap server, routines 400 to 410.

    client             a task's side
    server             the embedder's face, which puts the parts together
    view               what the embedder sees of services
    audit              records of the audit trail in words
    requests           how a request gets to its routine, and the answer back
    routines           what they do: where, may they, do it, answer
    notices            what the kernel tells: deaths, returns, messages, no senders
    launcher           starting servers: at once and again, or on demand
    access             who may do what to a name, and what is noted of it for the audit trail
    namespace          contexts and servers: made, and ended
    custody            services and the rights behind them: made, handed over, back again, dead
    rights             getting ports, having the kernel tell of them, letting them go
    labels             which label a name has
    service_contexts   by what file it has that
    registry           the books
    places             what is in them of contexts and servers
    services           what is in them of services
    turn               the lock, and who takes it
    protocol           numbers, codes, and what a name is

A part knows those below it in this list, and none above.
"""

from .audit import sentence
from .client import Bootstrap
from .launcher import Launch
from .places import Context, Server
from .protocol import (
    BOOTSTRAP,
    BootstrapError,
    Code,
    NameInUse,
    NotPrivileged,
    ServiceActive,
    ServiceInfo,
    Status,
    UnknownService,
)
from .registry import Limits
from .server import NameServer
from .service_contexts import ServiceContexts
from .services import Owner, State
from .view import Service

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
