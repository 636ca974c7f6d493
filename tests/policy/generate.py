# SPDX-License-Identifier: BSD-2-Clause
"""Random small CIL policies over the whole subset: the same seed gives the same policy.

python tests/policy/generate.py SEED prints one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence

PORT = ["send", "recv", "make_send", "hold_send", "use_recv", "set_reply", "relabelto"]
PAIRS = ["u1 u2", "r1 r2", "t1 t2", "l1 l2", "l1 h2", "h1 l2", "h1 h2", "l1 h1", "l2 h2"]
ORDER, EQUALITY = ["eq", "neq", "dom", "domby", "incomp"], ["eq", "neq"]
DROPPABLE = ("neverallow", "type rules")
"""Sections that may make a policy one to be refused; without them it is to be accepted."""


class Generator:
    """Makes one policy.

    Attributes:
        lines: (section, statement) in order.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lines: list[tuple[str, str]] = []
        self.types: list[str] = []
        self.attributes: list[str] = []
        self.classes: dict[str, list[str]] = {"mach_port": PORT, "mach_task": ["create", "observe"]}
        self.sets: list[str] = []
        self.booleans: list[str] = []
        self.mls = self.chance(0.5)
        for section in (
            self._types, self._attributes, self._classes, self._roles, self._levels, self._users,
            self._blocks, self._rules, self._neverallows, self._type_rules, self._booleans,
            self._constraints, self._extended, self._options,
        ):  # fmt: skip
            section()

    def text(self, without: Sequence[str] = ()) -> str:
        """Return the policy, without some of its sections."""
        return "".join(f"{line}\n" for section, line in self.lines if section not in without)

    # ---- choices ----

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def one(self, items: Sequence[str]) -> str:
        return self.rng.choice(items)

    def some(self, items: Sequence[str], least: int = 1, most: int = 4) -> list[str]:
        count = self.rng.randint(min(least, len(items)), min(most, len(items)))
        return self.rng.sample(list(items), count)

    def times(self, low: int, high: int) -> range:
        return range(self.rng.randint(low, high))

    def add(self, *lines: str, section: str = "") -> None:
        self.lines.extend((section, line) for line in lines)

    def expression(self, names: Sequence[str], depth: int = 2) -> str:
        """Return a set expression, always in parentheses."""
        kind = self.rng.randrange(7 if depth else 2)
        if kind < 2:
            return f"({' '.join(self.some(names))})"
        if kind == 2:
            return "(all)"
        if kind == 3:
            return f"(not {self.expression(names, depth - 1)})"
        one, other = (self.expression(names, depth - 1) for _ in range(2))
        return f"({self.one(['and', 'or', 'xor'])} {one} {other})"

    def source(self) -> str:
        return self.one([*self.types, *self.attributes])

    def target(self) -> str:
        return "self" if self.chance(0.15) else self.source()

    def permissions(self) -> str:
        """Return CLASSPERMS."""
        if self.sets and self.chance(0.2):
            return self.one(self.sets)
        name = self.one(list(self.classes))
        words = self.classes[name]
        plain = self.chance(0.6)
        return f"({name} ({' '.join(self.some(words))}))" if plain else self.permission_set(name)

    def permission_set(self, name: str) -> str:
        return f"({name} {self.expression(self.classes[name], 1)})"

    # ---- sections ----

    def _types(self) -> None:
        for number in self.times(2, 5):
            self.types.append(f"type{number}_t")
            self.add(f"(type type{number}_t)")
        if self.chance(0.4):
            actual = self.one(self.types)
            self.add("(typealias other_t)", f"(typealiasactual other_t {actual})")
            self.types.append("other_t")

    def _attributes(self) -> None:
        for number in self.times(0, 4):
            name = f"attribute{number}"
            self.add(f"(typeattribute {name})")
            names = [*self.types, *self.attributes]
            for _ in self.times(1, 2):
                self.add(f"(typeattributeset {name} {self.expression(names)})")
            if self.chance(0.2):
                self.add(f"(expandtypeattribute ({name}) {self.one(['true', 'false'])})")
            self.attributes.append(name)

    def _classes(self) -> None:
        for number in self.times(0, 2):
            self._class(f"object{number}", [f"do{n}" for n in range(self.rng.randint(1, 8))])
        if self.chance(0.5):
            self._class("process", ["fork", "transition", "dyntransition"])
        if self.chance(0.6):
            self._class("mi_service", [f"routine{n}" for n in range(5)] + ["ioctl"])
        if self.chance(0.4):
            words = self.some([f"{self.permissions()}" for _ in range(3)])
            self.add("(classpermission picked)")
            self.add(*(f"(classpermissionset picked {each})" for each in words))
            self.sets.append("picked")
        if self.chance(0.4):
            self.add("(classmap group (read write))")
            for word in ("read", "write", "read"):
                self.add(f"(classmapping group {word} {self.permissions()})")
            self.sets += ["(group (read))", "(group (write))", "(group (read write))"]

    def _class(self, name: str, words: list[str]) -> None:
        common = words[: self.rng.randint(1, len(words))] if self.chance(0.3) else []
        own = words[len(common) :]
        if common:
            self.add(f"(common {name}_common ({' '.join(common)}))")
        self.add(f"(class {name} ({' '.join(own)}))")
        if common:
            self.add(f"(classcommon {name} {name}_common)")
        self.classes[name] = words

    def _roles(self) -> None:
        self.roles = [f"role{number}_r" for number in self.times(1, 3)]
        for role in self.roles:
            self.add(f"(role {role})")
            names = [*self.types, *self.attributes]
            self.add(*(f"(roletype {role} {name})" for name in self.some(names)))
        self.role_names = [*self.roles, "object_r"]
        if self.chance(0.3):
            self.add("(roleattribute trusted_r)")
            self.add(f"(roleattributeset trusted_r {self.expression(self.roles, 1)})")
            self.role_names.append("trusted_r")

    def _levels(self) -> None:
        self.add(f"(mls {'true' if self.mls else 'false'})")
        self.sensitivities = [f"s{number}" for number in self.times(1, 3)]
        self.categories = [f"c{number}" for number in self.times(0, 5)]
        for kind, names in (("sensitivity", self.sensitivities), ("category", self.categories)):
            self.add(*(f"({kind} {name})" for name in names))
            if names:
                self.add(f"({kind}order ({' '.join(names)}))")
        if self.chance(0.3):
            self.add("(sensitivityalias low)", "(sensitivityaliasactual low s0)")
        if not self.categories:
            return
        if self.chance(0.3):
            self.add("(categoryalias first)", "(categoryaliasactual first c0)")
        self.reach = {}
        for sensitivity in self.sensitivities:
            self.reach[sensitivity] = some = self.some(self.categories, 1, 5)
            self.add(f"(sensitivitycategory {sensitivity} ({' '.join(some)}))")

    def level(self, sensitivity: str, categories: Sequence[str]) -> str:
        known = (
            [name for name in categories if name in self.reach[sensitivity]] if categories else []
        )
        return f"({sensitivity} ({' '.join(known)}))" if known else f"({sensitivity})"

    def _users(self) -> None:
        self.users = [f"user{number}_u" for number in self.times(1, 2)]
        for user in self.users:
            self.add(f"(user {user})")
            roles = self.some(self.role_names)
            self.add(*(f"(userrole {user} {role})" for role in roles))
            low, high = sorted(self.rng.choices(range(len(self.sensitivities)), k=2))
            both = self.some(self.categories, 0, 5)
            shared = [c for c in both if c in self.reach[self.sensitivities[high]]] if both else []
            ends = [
                self.level(self.sensitivities[low], self.some(shared, 0) if shared else []),
                self.level(self.sensitivities[high], shared),
            ]
            self.add(f"(userlevel {user} {ends[0]})", f"(userrange {user} ({' '.join(ends)}))")

    def _blocks(self) -> None:
        if self.chance(0.6):
            return
        inner = f"(allow inner_t inner_t (mach_port ({self.one(PORT)})))"
        outer = f"(allow inner_t {self.one(self.types)} {self.permissions()})"
        self.add(f"(block part (type inner_t) (typeattribute all_of) {inner} {outer}")
        self.add("  (block deep (type inner_t) (allow inner_t part.inner_t (mach_port (send)))))")
        self.add(f"(in part (typeattributeset all_of (inner_t {self.one(self.types)})))")
        self.add(f"(in part.deep (allow inner_t all_of {self.permissions()}))")
        self.types += ["part.inner_t", "part.deep.inner_t"]
        self.attributes.append("part.all_of")

    def _rules(self) -> None:
        for _ in self.times(3, 20):
            kind = self.rng.choices(["allow", "auditallow", "dontaudit"], [6, 2, 2])[0]
            self.add(self.rule(kind))

    def rule(self, kind: str) -> str:
        return f"({kind} {self.source()} {self.target()} {self.permissions()})"

    def _neverallows(self) -> None:
        for _ in self.times(0, 2):
            self.add(self.rule("neverallow"), section="neverallow")

    def type_rule(self) -> str:
        kind = self.one(["typetransition", "typechange"])
        tclass, result = self.one(list(self.classes)), self.one(self.types)
        return f"({kind} {self.source()} {self.source()} {tclass} {result})"

    def _type_rules(self) -> None:
        for _ in self.times(0, 3):
            self.add(self.type_rule(), section="type rules")

    def _booleans(self) -> None:
        self.booleans = [f"bool{number}" for number in self.times(0, 4)]
        self.add(*(f"(boolean {name} {self.one(['true', 'false'])})" for name in self.booleans))
        for _ in self.times(0, 3) if self.booleans else ():
            branches = [f"({word} {self._branch()})" for word in self.some(["true", "false"], 1, 2)]
            self.add(f"(booleanif {self.condition()} {' '.join(branches)})")
        for _ in self.times(0, 1) if self.booleans else ():
            line = f"(booleanif {self.condition()} (true {self.type_rule()}))"
            self.add(line, section="type rules")

    def _branch(self) -> str:
        kinds = ["allow", "auditallow", "dontaudit"]
        return " ".join(self.rule(self.one(kinds)) for _ in self.times(1, 3))

    def condition(self, depth: int = 3) -> str:
        if not depth or self.chance(0.3):
            return self.one(self.booleans)
        operator = self.one(["and", "or", "xor", "eq", "neq", "not"])
        count = 1 if operator == "not" else 2
        return f"({operator} {' '.join(self.condition(depth - 1) for _ in range(count))})"

    def _constraints(self) -> None:
        for _ in self.times(0, 4):
            mls = self.chance(0.6)
            kind = "mlsconstrain" if mls else "constrain"
            self.add(f"({kind} {self.permissions()} {self.constraint(mls)})")

    def constraint(self, mls: bool, depth: int = 2) -> str:
        if depth and self.chance(0.6):
            operator = self.one(["and", "or", "not"])
            parts = [self.constraint(mls, depth - 1) for _ in range(1 if operator == "not" else 2)]
            return f"({operator} {' '.join(parts)})"
        if self.chance(0.35):
            return self._named()
        pair = self.one(PAIRS if mls else PAIRS[:3])
        return f"({self.one(EQUALITY if pair[0] in 'ut' else ORDER)} {pair})"

    def _named(self) -> str:
        names: dict[str, Callable[[], Sequence[str]]] = {
            "u": lambda: self.users,
            "r": lambda: self.role_names,
            "t": lambda: [*self.types, *self.attributes],
        }
        what = self.one(["u", "r", "t"])
        known = names[what]()
        right = self.one(known) if self.chance(0.5) else f"({' '.join(self.some(known))})"
        return f"({self.one(EQUALITY)} {what}{self.one(['1', '2'])} {right})"

    def _extended(self) -> None:
        extended = [name for name, words in self.classes.items() if "ioctl" in words]
        for number in self.times(0, 4) if extended else ():
            kind = f"(ioctl {self.one(extended)} ({self.numbers()}))"
            if self.chance(0.3):
                self.add(f"(permissionx numbers{number} {kind})")
                kind = f"numbers{number}"
            self.add(f"(allowx {self.source()} {self.target()} {kind})")

    def numbers(self) -> str:
        """Return numbers and ranges, some as wide as a driver of 256."""
        ranges = [(0, 3), (1, 1), (2, 40), (0x100, 0x1FF), (0x80, 0x17F), (0x20, 0x3A5)]
        parts = []
        for low, high in (self.rng.choice(ranges) for _ in self.times(1, 2)):
            parts.append(str(low) if low == high else f"(range {low} {high:#x})")
        return " ".join(parts)

    def _options(self) -> None:
        self.add(f"(handleunknown {self.one(['allow', 'deny', 'reject'])})")
        if self.chance(0.3):
            self.add(f"(typepermissive {self.one(self.types)})")
        if self.chance(0.3):
            context = f"(system_u object_r {self.types[0]} ((s0) (s0)))"
            self.add(f"(roletype object_r {self.types[0]})")
            self.add("(sid own)", f"(sidcontext own {context})")


def candidates(seed: int) -> dict[tuple[str, ...], str]:
    """Return a policy, the same without each of its droppable sections, and without any.

    Returns:
        by the sections left out. The last one is to be accepted.
    """
    made = Generator(seed)
    omitted = [(), *((section,) for section in DROPPABLE), DROPPABLE]
    return {sections: made.text(sections) for sections in omitted}


if __name__ == "__main__":
    print(Generator(int(sys.argv[1])).text())
