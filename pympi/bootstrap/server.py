# SPDX-License-Identifier: BSD-2-Clause
"""The name server: Mach's bootstrap server, under access control that is enforced.

It is a task with handler ports, so whoever asks is answered in the same call. This module puts its
parts together, and is what the embedder has of them; the package says what each part is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import inspect
from ..enums import SpecialPort
from .access import Access
from .custody import Custody
from .labels import Labels
from .launcher import Launcher
from .namespace import Namespace
from .notices import Notices
from .protocol import NAME_MAX, Code, acceptable, failure
from .registry import Limits, Registry
from .requests import Requests
from .rights import Rights
from .routines import Routines
from .services import Found
from .view import Service, context_row, services_in

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..port import ReceiveRight
    from ..task import Task
    from .launcher import Launch
    from .places import Context, Server
    from .service_contexts import ServiceContexts

__all__ = ["NameServer"]


class NameServer:
    """A kernel's name server: `kernel.bootstrap`, or `kernel.start_bootstrap(...)`.

    Args:
        kernel: which gets a task for it.
        label: of that task; "-" unless said.
        root_label: of the root's port; by default what the policy says for the name server.
        service_contexts: labels of services by name; what has none there has the label of the port
            of its context.
        launch: starts servers, `launch(Launch) -> Task`; without it none can be created.
        limits: what it takes at most.

    Attributes:
        task (Task): the name server's own.
        root (Context): the context of tasks that have no parent.
        contexts (dict[int, Context]), servers (dict[int, Server]): by number.

    Raises:
        LabelError: a label is none of the policies in force.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     printd, editor = kernel.create_task("printd"), kernel.create_task("editor")
        ...     inbox = printd.allocate_port()
        ...     printd.bootstrap.register("com.example.print", inbox)
        ...     editor.bootstrap.look_up("com.example.print").send(b"page 1")
        ...     inbox.receive().body
        b'page 1'
    """

    def __init__(
        self, kernel: Kernel, *, label: str | None = None, root_label: str | None = None,
        service_contexts: ServiceContexts | None = None,
        launch: Callable[[Launch], Task] | None = None, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.kernel = kernel
        self.task = kernel.create_task("bootstrap", label)
        self._registry = Registry(limits or Limits())
        self._turn = self._registry.turn
        self._labels = Labels(kernel)
        if service_contexts is not None:
            self._labels.use(service_contexts)
        self._connect(launch)
        with self._turn:
            self.root = self._namespace.make_context(None, label=root_label)
        kernel.bootstrap_contexts = self.snapshot

    def _connect(self, launch: Callable[[Launch], Task] | None) -> None:
        registry, labels = self._registry, self._labels
        self._rights = rights = Rights(self.task, self._turn)
        self._custody = custody = Custody(registry, rights, labels)
        self._namespace = namespace = Namespace(registry, rights, labels, custody)
        self._access = access = Access(self.task, registry, labels)
        launcher = Launcher(self, launch, registry, rights, custody, namespace)
        routines = Routines(registry, rights, access, custody, namespace, launcher)
        notices = Notices(registry, rights, custody, namespace, launcher)
        requests = Requests(routines, notices)
        rights.connect(requests.handle, notices.told, notices.given_back)

    def __repr__(self) -> str:
        return f"<NameServer, {self._registry.services} services in {len(self.contexts)} contexts>"

    @property
    def contexts(self) -> dict[int, Context]:
        return self._registry.contexts

    @property
    def servers(self) -> dict[int, Server]:
        return self._registry.servers

    @property
    def limits(self) -> Limits:
        return self._registry.limits

    @property
    def service_contexts(self) -> ServiceContexts:
        return self._labels.service_contexts

    # ---- tasks and contexts ----

    def give(self, task: Task, context: Context | None = None) -> None:
        """Make a context the one where a task, and its children, ask; the root unless said.

        Raises:
            AccessDenied: the task may not hold a right to the context's port, or the name server
                not set the port.
        """
        self.set_port(task, (context or self.root).port)

    def set_port(self, task: Task, port: ReceiveRight) -> None:
        """Make one of the name server's ports the bootstrap port of a task."""
        with port.make_send(self.task) as right:
            task.set_special_port(SpecialPort.BOOTSTRAP, right, caller=self.task)

    def create_context(
        self, parent: Context | None = None, *, label: str | None = None, per_label: bool = False
    ) -> Context:
        """Make a context, which lives as long as the name server.

        Args:
            parent: above it; the root unless said.
            label: of its port, on which `mi_bootstrap` is asked, and of services that have none.
            per_label: give each label services of its own under the same names (polyinstantiation).

        Raises:
            LabelError: the label is none.
            BootstrapError: there are too many contexts.
        """
        with self._turn:
            above = parent or self.root
            return self._namespace.make_context(above, label=label, per_label=per_label)

    # ---- services ----

    def declare(
        self, name: str, context: Context | None = None, *, label: str | None = None
    ) -> Service:
        """Make a service that waits for its server to check in, as `create_service` does.

        Args:
            name: of the service.
            context: where; the root unless said.
            label: of the service's port; by default what the policy says for the name server.

        Raises:
            BootstrapError: it is there, or there is no room.
            ValueError: no name that can be used.
        """
        place = context or self.root
        if not acceptable(name):
            raise ValueError(f"a name has 1 to {NAME_MAX} bytes that can be shown, not {name!r}")
        found = Found(place.shared, name)
        with self._turn:
            if name in place.shared:
                raise failure(Code.NAME_IN_USE, name)
            self._custody.declare(place, found, label=label)
        return Service(self.task, self._registry, found, "")

    def forget(self, service: Service) -> None:
        """Take a service away, and whatever right the name server has to its port."""
        with self._turn:
            self._custody.remove(service._found)

    def services(self, context: Context | None = None) -> list[Service]:
        """Return the services of a context, or of all, sorted by context and name."""
        with self._turn:
            places = [context] if context else list(self.contexts.values())
            return [service for place in places for service in self._services_in(place)]

    def _services_in(self, context: Context) -> list[Service]:
        return services_in(self.task, self._registry, context)

    def snapshot(self) -> list[inspect.Context]:
        """Return contexts and services as data, for `Kernel.snapshot`."""
        with self._turn:
            places = self.contexts.values()
            return [context_row(place, self._services_in(place)) for place in places]

    def use_service_contexts(self, service_contexts: ServiceContexts) -> None:
        """Label services by other contexts from now on, those there are as well.

        Raises:
            LabelError: a label is none of the policies in force; nothing has changed.
        """
        with self._turn:
            self._labels.use(service_contexts)
            self._custody.relabel()

    def close(self) -> None:
        """Let go of labels; the kernel does this when it is closed."""
        self._labels.close()
