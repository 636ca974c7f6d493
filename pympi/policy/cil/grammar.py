# SPDX-License-Identifier: BSD-2-Clause
"""The statements of the subset, as a table: what stands where, and what the rest is called.

Messages, documentation and the compiler all go by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .hints import like
from .reader import Node, Sources, found

__all__ = ["OUTSIDE", "RESERVED", "STATEMENTS", "Statement", "nearest", "statement"]


class Argument(NamedTuple):
    """A place in a statement: what may stand there, in words; a word, a list or either."""

    words: str
    word: bool = True
    list: bool = False


_EITHER = {"word": True, "list": True}
_LIST = {"word": False, "list": True}

ARGUMENTS: Mapping[str, Argument] = {
    "NAME": Argument("a name to declare"),
    "ALIAS": Argument("an alias"),
    "TYPE": Argument("a type"),
    "TYPES": Argument("a type or an attribute"),
    "TARGET": Argument("a type, an attribute or self"),
    "ATTRIBUTE": Argument("an attribute"),
    "ATTRIBUTES": Argument("an attribute, or a list of them", **_EITHER),
    "SET": Argument("a name or an expression: (NAME...), (and A B), (not A), (all)", **_EITHER),
    "CATEGORYSET": Argument("a list of categories, or an expression", **_LIST),
    "CATEGORIES": Argument("categories: a name, (NAME...), (range LOW HIGH), ...", **_EITHER),
    "PERMISSIONS": Argument("a list of permissions", **_LIST),
    "COMMON": Argument("a common"),
    "CLASS": Argument("a class"),
    "MAP": Argument("a class map"),
    "PERMISSION": Argument("a permission"),
    "CLASSPERMS": Argument("(CLASS (PERMISSION...)), or a classpermission", **_EITHER),
    "XPERMS": Argument("(ioctl CLASS (NUMBER...)), or a permissionx", **_EITHER),
    "XPERMLIST": Argument("(ioctl CLASS (NUMBER...))", **_LIST),
    "USER": Argument("a user"),
    "ROLES": Argument("a role or a role attribute"),
    "ROLEATTRIBUTE": Argument("a role attribute"),
    "BOOL": Argument("true or false"),
    "CONDITION": Argument("a boolean, or an expression of booleans", **_EITHER),
    "BRANCH": Argument("(true STATEMENT...) or (false STATEMENT...)", **_LIST),
    "CONSTRAINT": Argument("an expression such as (eq u1 u2)", **_LIST),
    "SENSITIVITY": Argument("a sensitivity"),
    "CATEGORY": Argument("a category"),
    "ORDER": Argument("a list of names, lowest first", **_LIST),
    "LEVEL": Argument("a level: a name, (SENSITIVITY) or (SENSITIVITY CATEGORIES)", **_EITHER),
    "NEWLEVEL": Argument("(SENSITIVITY) or (SENSITIVITY CATEGORIES)", **_LIST),
    "RANGE": Argument("a range: a name, or (LEVEL LEVEL)", **_EITHER),
    "NEWRANGE": Argument("(LEVEL LEVEL)", **_LIST),
    "CONTEXT": Argument("a context: a name, or (USER ROLE TYPE RANGE)", **_EITHER),
    "NEWCONTEXT": Argument("(USER ROLE TYPE RANGE)", **_LIST),
    "SID": Argument("an initial SID"),
    "UNKNOWN": Argument("allow, deny or reject"),
    "CAPABILITY": Argument("a policy capability"),
    "BLOCK": Argument("a block"),
    "STATEMENT": Argument("a statement", **_LIST),
}
"""What the words in shapes mean."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the subset.

    Attributes:
        keyword: its first word.
        shape: its arguments by their names in `ARGUMENTS`; `...` may repeat, `?` may be left out.
        block: whether it may stand in a block; else at the top only.
        conditional: whether it may stand in a booleanif.
        remark: what its users should know.
        arguments: their names.
        least, most: how many there are.
    """

    keyword: str
    shape: str
    block: bool
    conditional: bool
    remark: str
    arguments: tuple[str, ...]
    least: int
    most: float


def _table(rows: Iterable[tuple[str, str, str, str]]) -> dict[str, Statement]:
    return {row[0]: _row(*row) for row in rows}


def _row(keyword: str, shape: str, where: str, remark: str) -> Statement:
    words = shape.split()
    most = float("inf") if "..." in shape else len(words)
    arguments = tuple(word.rstrip("?.") for word in words)
    least = len(words) - shape.count("?")
    return Statement(keyword, shape, "b" in where, "c" in where, remark, arguments, least, most)


# keyword, shape, where (b: in blocks too, c: in booleanif too), remark
STATEMENTS: Mapping[str, Statement] = _table([
    ("class", "NAME PERMISSIONS", "", "at most 32 permissions, those of its common included"),
    ("common", "NAME PERMISSIONS", "", "permissions that classes share"),
    ("classcommon", "CLASS COMMON", "", "the common's permissions come first"),
    ("classorder", "ORDER", "", "the base orders classes that are in none; no `unordered`"),
    ("classmap", "NAME PERMISSIONS", "b", "permissions that stand for those of classes"),
    ("classmapping", "MAP PERMISSION CLASSPERMS", "b", "may be repeated: the sets add up"),
    ("classpermission", "NAME", "b", "needs a classpermissionset"),
    ("classpermissionset", "NAME CLASSPERMS", "b", "may be repeated: the sets add up"),
    ("user", "NAME", "b", "no user attributes"),
    ("userrole", "USER ROLES", "b", ""),
    ("userlevel", "USER LEVEL", "b", "once a user; needed where mls is on"),
    ("userrange", "USER RANGE", "b", "once a user; needed where mls is on"),
    ("role", "NAME", "b", "object_r takes every type"),
    ("roletype", "ROLES TYPES", "b", ""),
    ("roleattribute", "NAME", "b", ""),
    ("roleattributeset", "ROLEATTRIBUTE SET", "b", "may be repeated: the sets add up"),
    ("type", "NAME", "b", ""),
    ("typealias", "NAME", "b", "needs a typealiasactual"),
    ("typealiasactual", "ALIAS TYPE", "b", ""),
    ("typeattribute", "NAME", "b", ""),
    ("typeattributeset", "ATTRIBUTE SET", "b", "may be repeated: the sets add up"),
    ("expandtypeattribute", "ATTRIBUTES BOOL", "b", "accepted; it changes no decision"),
    ("typepermissive", "TYPE", "b", "what is refused to it is allowed and reported"),
    ("allow", "TYPES TARGET CLASSPERMS", "bc", "named sets only: no expression in a rule"),
    ("auditallow", "TYPES TARGET CLASSPERMS", "bc", "what is allowed is recorded"),
    ("dontaudit", "TYPES TARGET CLASSPERMS", "bc", "what is refused is not recorded"),
    ("neverallow", "TYPES TARGET CLASSPERMS", "b", "checked; booleans are not looked at"),
    ("permissionx", "NAME XPERMLIST", "b", "kind `ioctl` only; numbers decimal or 0x"),
    ("allowx", "TYPES TARGET XPERMS", "b", "narrows what allow gave to routine numbers"),
    ("typetransition", "TYPES TARGET CLASS TYPE", "bc", "no file name"),
    ("typechange", "TYPES TARGET CLASS TYPE", "bc", ""),
    ("boolean", "NAME BOOL", "b", ""),
    ("booleanif", "CONDITION BRANCH BRANCH?", "b", "and or xor eq neq not; not nested"),
    ("constrain", "CLASSPERMS CONSTRAINT", "b", "u1 u2 r1 r2 t1 t2"),
    ("mlsconstrain", "CLASSPERMS CONSTRAINT", "b", "l1 l2 h1 h2 as well; l2 first with h2 only"),
    ("sensitivity", "NAME", "", "the base has s0 if there is none"),
    ("sensitivityalias", "NAME", "", "needs a sensitivityaliasactual"),
    ("sensitivityaliasactual", "ALIAS SENSITIVITY", "", ""),
    ("sensitivityorder", "ORDER", "", "every sensitivity, lowest first; several must overlap"),
    ("category", "NAME", "", ""),
    ("categoryalias", "NAME", "", "needs a categoryaliasactual"),
    ("categoryaliasactual", "ALIAS CATEGORY", "", ""),
    ("categoryset", "NAME CATEGORYSET", "b", ""),
    ("categoryorder", "ORDER", "", "every category; several must overlap"),
    ("sensitivitycategory", "SENSITIVITY CATEGORIES", "", "may be repeated: the sets add up"),
    ("level", "NAME NEWLEVEL", "b", "its categories must be its sensitivity's"),
    ("levelrange", "NAME NEWRANGE", "b", "the second level dominates the first"),
    ("context", "NAME NEWCONTEXT", "b", "must be valid"),
    ("sid", "NAME", "", "the base has kernel and unlabeled"),
    ("sidorder", "ORDER", "", "the base orders SIDs that are in none"),
    ("sidcontext", "SID CONTEXT", "b", "once a SID"),
    ("handleunknown", "UNKNOWN", "", "deny, unless said otherwise"),
    ("mls", "BOOL", "", "false, unless said otherwise: contexts have no levels"),
    ("policycap", "CAPABILITY", "", "SELinux's seven; accepted; they are about Linux"),
    ("block", "NAME STATEMENT...?", "b", "its names are NAME.x outside; no inheritance"),
    ("in", "BLOCK STATEMENT...", "b", "adds to a block; no `before` and `after`; not nested"),
])  # fmt: skip
"""The subset, by keyword."""

_WHY = {
    "inheritance of blocks": "blockinherit blockabstract",
    "macros": "macro call",
    "optional blocks and tunables": "optional tunable tunableif",
    "attributes of users": "userattribute userattributeset userbounds userprefix",
    "defaults for users": "selinuxuser selinuxuserdefault",
    "bounds": "typebounds rolebounds",
    "changes of role": "roletransition roleallow",
    "changes of range": "rangetransition",
    "typemember": "typemember",
    "extended rules other than allowx": "auditallowx dontauditx neverallowx",
    "validation of changes": "validatetrans mlsvalidatetrans",
    "defaults of new objects": "defaultuser defaultrole defaulttype defaultrange",
    "rules that take away": "deny",
    "source marks": "src_info",
    "labels of Linux objects": "filecon fsuse genfscon netifcon nodecon portcon ibpkeycon"
    " ibendportcon devicetreecon ipaddr pirqcon iomemcon ioportcon pcidevicecon",
}
OUTSIDE: Mapping[str, str] = {word: why for why, words in _WHY.items() for word in words.split()}
"""CIL's other statements: keyword to what they are about."""

RESERVED = frozenset(
    ["all", "and", "after", "before", "eq", "neq", "not", "or", "range", "self", "unordered", "xor"]
)
"""Words that name nothing."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?", or nothing."""
    near = like(word, known, 1, 0.7)
    return f"; did you mean '{near[0]}'?" if near else ""


def statement(sources: Sources, node: Node) -> Statement:
    """Return the table's row for a statement, whose arguments are of the right kind.

    Raises:
        PolicyError: it is none, is outside the subset, or has other arguments.
    """
    keyword = node[1] if len(node) > 1 else None
    row = STATEMENTS.get(keyword) if isinstance(keyword, str) else None
    if row is None:
        raise sources.error(_not_a_statement(keyword), node[0], 1)
    count = len(node) - 2
    if not row.least <= count <= row.most:
        raise _wrong_count(sources, node, row)
    for child, name in enumerate(row.arguments[:count], 2):
        argument = ARGUMENTS[name]
        if not (argument.list if isinstance(node[child], tuple) else argument.word):
            words = f"expected {argument.words}, found {found(node[child])}"
            raise sources.error(f"{words}, in ({row.keyword} {row.shape})", node[0], child)
    return row


def _not_a_statement(keyword: object) -> str:
    if not isinstance(keyword, str):
        return f"expected a statement's keyword, found {found(keyword)}"
    if keyword in OUTSIDE:
        return f"'{keyword}' is CIL, but outside the subset: {OUTSIDE[keyword]}"
    suggestion = nearest(keyword, [*STATEMENTS, *OUTSIDE])
    return f"expected a statement's keyword, found {found(keyword)}{suggestion}"


def _wrong_count(sources: Sources, node: Node, row: Statement) -> Exception:
    if row.keyword == "typetransition" and len(node) == 7:
        return sources.error("a typetransition with a file name is outside the subset", node[0], 5)
    at = min(len(node), len(row.arguments) + 2)
    more = at < len(row.arguments) + 2
    expected = ARGUMENTS[row.arguments[at - 2]].words if more else "')'"
    words = found(node[at]) if at < len(node) else "')'"
    message = f"expected {expected}, found {words}, in ({row.keyword} {row.shape})"
    return sources.error(message, node[0], at)
