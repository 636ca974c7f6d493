# SPDX-License-Identifier: BSD-2-Clause
"""Misses without Python: gives the core the tables of the modules in force, and values of labels.

Only if every module that decides can be written as tables; else, and for what the tables do not
cover, Python is asked as ever: `pympi.policy.composition` says what is right. Tables are made when
a few questions have been asked under one policy, so that who flips booleans between two questions
does not pay for them. A label gets its values when Python makes it, else when it is asked about it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._ffi import ffi, lib
from ..enums import ObjectClass
from ..errors import code_name
from .base import PolicyModule
from .composition import Composition
from .tables import Numbering, Steps, Table, words_of

if TYPE_CHECKING:
    from .tables import Words

__all__ = ["PATIENCE", "Given", "Native", "NativeState", "obstacle"]

_log = logging.getLogger("pympi.policy")

PATIENCE = 32
"""How many questions Python answers under one policy before tables are made."""

_LATELY = 1 << 12
"""How many labels are remembered to have values, not to be given the same again."""

_STEP = np.dtype([("operator", "u1"), ("left", "u1"), ("right", "u1"), ("_", "u1"), ("set", "<u4")])


class NativeState(NamedTuple):
    """Whether misses are decided by the core: `kernel.policies.native`.

    Attributes:
        in_force (bool): they are, but for those about a label that is asked about the first time.
        why (str): why not; "" if they are.
    """

    in_force: bool
    why: str

    def __bool__(self) -> bool:
        return self.in_force


def obstacle(composition: Composition) -> str:
    """Return why misses under these modules need Python; "" if they do not."""
    if composition.shadows:
        return f"a shadow policy of {next(iter(composition.shadows.values())).name} is on trial"
    for module in composition.modules.values():
        if module.uncached:
            return f"module {module.name} is asked about every operation"
    for module in composition.deciders.values():
        if reason := _obstacle(module):
            return f"module {module.name} {reason}"
    return "" if composition.deciders else "no module decides"


def _obstacle(module: PolicyModule) -> str:
    kind = type(module)
    if "compile_tables" not in vars(kind):  # a class that inherits it may answer otherwise
        return "is written in Python"
    decide, compiles = vars(module).get("decide", kind.decide), kind.compile_tables
    if getattr(decide, "__module__", "") != compiles.__module__:
        return "has another decide() than its class"
    return module.table_obstacle


class Given:
    """What the core was given: tables of an epoch, and values of labels by their numberings."""

    def __init__(
        self, pointer: Any, epoch: int, composition: Composition, numberings: dict[str, Numbering]
    ) -> None:
        self.epoch = epoch
        self._pointer = pointer
        self._composition = composition
        places = {filed: place for place, filed in enumerate(composition.modules)}
        self._by_place = [(places[filed], each) for filed, each in numberings.items()]
        self._lately: set[int] = set()  # SIDs; one is not used again before the epoch moves

    def give(self, sid: int, text: str) -> None:
        """Give a label its values; it gets none if a module cannot read it."""
        if sid in self._lately:
            return
        values = self._composition.readable(text)
        if values is None:
            return
        try:
            words = words_of([each.sight(values[place]) for place, each in self._by_place])
        except (ValueError, OverflowError):  # not a value that tables can have
            return
        raw = ffi.from_buffer("uint32_t[]", words)
        if lib.pm_sid_set_values(self._pointer, sid, self.epoch, raw, len(words)):
            return
        if len(self._lately) >= _LATELY:
            self._lately.clear()
        self._lately.add(sid)


class Native:
    """Has the core decide misses, as far as it can. The lock of `Policies` is held."""

    def __init__(self, pointer: Any) -> None:
        self._pointer = pointer
        self._wanted = True  # until the kernel says that it has no fast paths
        self._asked = 0
        self._failure = ""
        self._given: Given | None = None
        self._numberings: dict[str, Numbering] = {}  # of the values that labels have

    def restart(self) -> None:
        """Begin anew: modules or classes are others."""
        self._asked, self._failure, self._given = 0, "", None

    def state(self, composition: Composition) -> NativeState:
        """Return whether tables are in force, and why not."""
        if self.given():
            return NativeState(True, "")
        if not self._wanted:
            return NativeState(False, "the kernel was made with fast_path=False")
        few = f"fewer than {PATIENCE} questions were asked since the policy changed"
        return NativeState(False, obstacle(composition) or self._failure or few)

    def given(self) -> Given | None:
        """Return the tables in force, if there are any. Any thread may ask, without the lock."""
        given = self._given
        return given if given and given.epoch == lib.pm_kernel_epoch(self._pointer) else None

    def ask(
        self, composition: Composition, classes: Iterable[ObjectClass], count: int
    ) -> Given | None:
        """Take note of questions, and make tables if it is time; return them if they are in force.

        What fails is tried again after as many questions.
        """
        if given := self.given():
            return given
        self._asked += count
        if self._asked < PATIENCE or not self._wanted:
            return None
        self._asked = 0
        if not obstacle(composition):
            self._install(composition, tuple(classes))
        return self.given()

    def _install(self, composition: Composition, classes: Sequence[ObjectClass]) -> None:
        epoch = lib.pm_kernel_epoch(self._pointer)
        try:
            tables = {
                filed: module.compile_tables(classes, self._numberings.get(filed))
                for filed, module in composition.deciders.items()
            }
            form = Form(list(tables.values()), classes)
        except Exception as error:
            self._failure = f"no tables could be made: {error}"
            _log.warning("no tables could be made of the policy: %r", error, exc_info=error)
            return
        numberings = {filed: table.numbering for filed, table in tables.items()}
        soft = [composition.is_permissive(filed) for filed in tables]
        code = form.install(self._pointer, epoch, soft, self._same(numberings))
        self._wanted = code != lib.KERN_NOT_SUPPORTED
        self._failure = f"the core takes no such tables ({code_name(code)})" if code else ""
        if not code:
            self._numberings = numberings
            self._given = Given(self._pointer, epoch, composition, numberings)

    def _same(self, numberings: dict[str, Numbering]) -> bool:
        """Tell whether values that labels have mean the same by these numberings."""
        before = self._numberings
        return list(numberings) == list(before) and all(
            numbering is before[filed] for filed, numbering in numberings.items()
        )


class Form:
    """Tables in the form of `struct pm_native`. The arrays it points to live as long as it does."""

    def __init__(self, tables: Sequence[Table], classes: Iterable[ObjectClass]) -> None:
        numbers = {tclass.number for tclass in classes}
        self._count = max(numbers) + 1
        self._arrays: list[Any] = []
        known = bytes(number in numbers for number in range(self._count))
        self._modules = ffi.new("struct pm_native_module[]", len(tables))
        for module, table in zip(self._modules, tables, strict=True):
            self._fill(module, table)
        self._native = ffi.new("struct pm_native *")
        self._native.modules, self._native.modules_count = self._modules, len(tables)
        self._native.known, self._native.classes_count = self._at("uint8_t[]", known), self._count

    def install(self, pointer: Any, epoch: int, soft: Sequence[bool], keep: bool) -> int:
        """Put the tables in force; return the code.

        Args:
            pointer: the kernel.
            epoch: that they belong to.
            soft: of each, whether what it refuses is reported only.
            keep: whether labels' values mean the same as with the last tables.
        """
        self._native.epoch, self._native.keep_values = epoch, keep
        for module, permissive in zip(self._modules, soft, strict=True):
            module.flags = lib.PM_NATIVE_PERMISSIVE if permissive else 0
        return int(lib.pm_kernel_set_native(pointer, self._native))

    def _at(self, kind: str, data: Any) -> Any:
        self._arrays.append(data)
        return ffi.from_buffer(kind, data)

    def _words(self, data: Any) -> Any:
        return self._at("uint32_t[]", np.ascontiguousarray(data, np.uint32))

    def _rows(self, struct: str, data: Any) -> Any:
        return ffi.cast(f"struct {struct} *", self._words(data))

    def _fill(self, module: Any, table: Table) -> None:
        first, sets = _sets(table.sets)
        groups_first, groups = table.groups
        module.rules = self._rows("pm_native_rule", table.rules)
        module.rules_count = len(table.rules)
        module.groups_first, module.groups = self._words(groups_first), self._words(groups)
        module.kinds, module.numbers = len(groups_first) - 1, table.numbers
        module.sets_first, module.sets = self._words(first), self._words(sets)
        module.sets_count = len(table.sets)
        module.permissive = 0 if table.permissive is None else table.permissive + 1
        self._fill_tests(module, table)

    def _fill_tests(self, module: Any, table: Table) -> None:
        programs: dict[Steps, int] = {}
        steps: list[tuple[int, int, int, int]] = []
        tests: list[tuple[int, int, int]] = []
        classes = np.zeros((self._count, 4), np.uint32)
        for number, tclass in table.classes.items():
            classes[number] = tclass.allowed, tclass.granted, len(tests), len(tclass.tests)
            for permissions, program in tclass.tests:
                if program not in programs:
                    programs[program] = len(steps)
                    steps += program
                tests.append((permissions, programs[program], len(program)))
        flat = np.array([(o, a, b, 0, s) for o, a, b, s in steps], _STEP).view(np.uint32)
        module.classes = self._rows("pm_native_class", classes)
        module.tests, module.tests_count = self._rows("pm_native_test", tests), len(tests)
        module.steps, module.steps_count = self._rows("pm_native_step", flat), len(steps)


def _sets(sets: Sequence[int]) -> tuple[Words, Words]:
    raw = [bits.to_bytes(-(-bits.bit_length() // 32) * 4, "little") for bits in sets]
    first = np.zeros(len(sets) + 1, np.uint32)
    first[1:] = np.cumsum([len(each) // 4 for each in raw])
    return first, np.frombuffer(b"".join(raw), "<u4")
