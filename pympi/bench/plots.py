# SPDX-License-Identifier: BSD-2-Clause
"""Pictures of a run, by matplotlib, which the extra `bench` brings."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from .cases import LABELS_OF, TASKS_OF
from .systems import OBJECTS

if TYPE_CHECKING:
    from .runs import Finding

__all__ = ["check_available", "draw"]

Picture: TypeAlias = Callable[[Any, Sequence["Finding"]], None]

OURS, CHECKED, GREY = "#1f6f8b", "#c8553d", "#6b7280"
FAR = 3.0
"""In times of the baseline: what is as far off is written, not drawn to scale."""
COLORS = (OURS, CHECKED, GREY, "#b08900", "#6a4c93")
ASIDE = 0.012
COUNTED = "{x:,.0f}"
SEEN = 0.01
"""Misses for each message, as few of which are not written."""
GROWTH = (
    "As everything grows",
    f"ports in the kernel (a task to {TASKS_OF} of them, a label to {LABELS_OF})",
)
WHISKERS: dict[str, Any] = {"ecolor": "black", "capsize": 2, "error_kw": {"elinewidth": 0.8}}
STYLE: dict[str, Any] = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 12,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "figure.constrained_layout.use": True,
    "axes.axisbelow": True, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "pympi",
}  # fmt: skip


def check_available() -> None:
    """Check that there is matplotlib.

    Raises:
        ValueError: there is not.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("pictures need matplotlib: pip install 'pympi-mach[bench]'")


def draw(findings: Sequence[Finding], form: str) -> dict[str, bytes]:
    """Return the pictures there are figures for, by file name.

    Args:
        form: "png" or "svg".
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    made = {}
    with mpl.rc_context(STYLE):
        for name, (axes, parts) in PICTURES.items():
            found = [f for f in findings if f.case.axis in axes and f.result.ratios]
            if not found:
                continue
            figure = Figure(figsize=(3 + 5 * len(parts), 4.8), dpi=120)
            places = figure.subplots(1, len(parts), squeeze=False)[0]
            for plot, part in zip(places, parts, strict=True):
                part(plot, found)
            file = io.BytesIO()
            figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
            made[f"{name}.{form}"] = file.getvalue()
    return made


def figure_of(value: float) -> str:
    """Return a ratio as it stands beside a bar."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def note(plot: Any, text: str, x: float, y: float) -> None:
    """Write a figure behind the end of a bar."""
    plot.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=8)


def stacks(plot: Any, found: Sequence[Finding]) -> None:
    """Draw what each stack of policies adds to a message; what adds too much leaves the picture."""
    order = list(dict.fromkeys(finding.case.value for finding in found))
    kept = [f.result.quartiles[2] for f in found if f.result.quartiles[1] < FAR] or [FAR]
    edge = max(10.0, 130 * (max(kept) - 1))
    for finding in found:
        at, color = (-0.2, OURS) if finding.case.axis == "stack" else (0.2, CHECKED)
        first, middle, third = (100 * (each - 1) for each in finding.result.quartiles)
        place = order.index(finding.case.value) + at
        whisker = [[middle - first], [third - middle]] if middle < edge else None
        plot.barh(place, min(middle, edge), 0.38, color=color, xerr=whisker, **WHISKERS)
        shown = f"{middle:+.1f} %" if middle < edge else f"{figure_of(1 + middle / 100)} times"
        note(plot, shown, min(max(third, 0), edge), place)
    names = {f.case.value: f.result.row.what.removesuffix(", in C") for f in found}
    plot.set_yticks(range(len(order)), [names[value] for value in order])
    plot.invert_yaxis()
    plot.set_xlim(min(-2.0, *plot.get_xlim()), edge)
    plot.axvline(0, color="black", linewidth=1)
    plot.grid(axis="y", visible=False)
    plot.set_title("What policies add to a message of 64 bytes", pad=26)
    plot.set_xlabel("percent of send + receive without policy (median and quartiles)")
    colors = ((OURS, "from Python: sender() + receiver()"), (CHECKED, "in C"))
    handles = [plot.barh(0, 0, color=color, label=label) for color, label in colors]
    plot.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 0.995), ncols=2, frameon=False
    )


def series(found: Sequence[Finding]) -> Iterator[tuple[str, str, list[Finding]]]:
    """Yield each series: its name, its color, and what belongs to it, in order."""
    for name, color in zip(dict.fromkeys(f.case.series for f in found), COLORS, strict=False):
        own = [finding for finding in found if finding.case.series == name]
        yield name, color, sorted(own, key=lambda finding: finding.case.at or 0)


def lines(plot: Any, found: Sequence[Finding]) -> None:
    """Draw series over numbers, with their quartiles."""
    for name, color, own in series(found):
        points = [(f.case.at or 0, *f.result.quartiles) for f in own]
        at, first, middle, third = (list(column) for column in zip(*points, strict=True))
        plot.plot(at, middle, marker="o", color=color, label=f"{name}{_missing(own[-1])}")
        plot.fill_between(at, first, third, color=color, alpha=0.2, linewidth=0)
    plot.legend(frameon=False)


def _missing(finding: Finding) -> str:
    misses = finding.result.runs[0].notes.get("misses", 0)
    return f"; at the right end {misses:.2g} misses a message" if misses >= SEEN else ""


def growing(title: str, things: str) -> Picture:
    """Return what draws what a message costs by how many things there are."""

    def draw(plot: Any, found: Sequence[Finding]) -> None:
        lines(plot, found)
        plot.set_xscale("log")
        plot.xaxis.set_major_formatter(COUNTED)
        plot.set_ylim(bottom=0)
        plot.axhline(1, color="black", linewidth=1)
        plot.set_title(title)
        plot.set_xlabel(things)
        plot.set_ylabel("send + receive by submit,\nin times of one port without policy")

    return draw


def labels(plot: Any, found: Sequence[Finding]) -> None:
    """Draw what checks cost by the number of labels, and where the cache does not hold them."""
    growing("Checks among many labels: 10,000 ports and tasks", "labels in the kernel")(plot, found)
    plot.set_yscale("log", base=2)
    plot.yaxis.set_major_formatter(COUNTED)
    plot.yaxis.set_minor_formatter("")  # a short axis would have "2 x 10^0"
    plot.set_ylim(bottom=0.8)
    plot.set_ylabel("send + receive by submit,\nin times of the same without policy")


def memory(plot: Any, found: Sequence[Finding]) -> None:
    """Draw the bytes a kernel has for each of its objects, as their number grows."""
    *_, (_, _, own) = series(found)
    for what, color in zip(OBJECTS, COLORS, strict=False):
        sizes = [f.result.runs[0].notes.get(f"bytes/{what}", 0) for f in own]
        label = f"a {what}: {sizes[-1]:,.0f} at the right end"
        plot.plot([f.case.at for f in own], sizes, marker="o", color=color, label=label)
    plot.set_xscale("log")
    plot.set_yscale("log")
    plot.xaxis.set_major_formatter(COUNTED)
    plot.yaxis.set_major_formatter(COUNTED)
    plot.legend(frameon=False)
    plot.set_title("Bytes for each object")
    plot.set_xlabel("ports in the kernel")
    plot.set_ylabel(
        "the core's memory for a kind of object,\nshared out among those that there are"
    )


def kernels(plot: Any, found: Sequence[Finding]) -> None:
    """Draw how much more threads do than one of them alone, each in a kernel of its own."""
    ticks = sorted({1, *(int(f.case.at or 1) for f in found)})
    for least, style, what in ((1.0, "-", "K times as much"), (0.9, ":", "0.9 of that")):
        ideal = [least * count for count in ticks]
        plot.plot(ticks, ideal, style, color="black", linewidth=1, label=what)
    for place, (name, color, own) in enumerate(series(found)):
        points = [(1.0, 1.0, 1.0, 1.0), *((f.case.at or 1, *_speeds(f)) for f in own)]
        at, first, middle, third = (list(column) for column in zip(*points, strict=True))
        spread = [list(map(float.__sub__, middle, first)), list(map(float.__sub__, third, middle))]
        aside = [
            count * (1 - ASIDE * place) for count in at[1:]
        ]  # where whiskers would hide others
        plot.errorbar([1.0, *aside], middle, spread, marker="o", capsize=3, color=color, label=name)
    plot.set_xticks(ticks)
    plot.set_ylim(bottom=0)
    plot.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    plot.set_title("K kernels in K threads, on as many cores")
    plot.set_xlabel("threads")
    plot.set_ylabel("what they do by the clock,\nin times of one thread alone")


def _speeds(finding: Finding) -> tuple[float, ...]:
    return tuple((finding.case.at or 1) / value for value in reversed(finding.result.quartiles))


def sizes(plot: Any, found: Sequence[Finding]) -> None:
    """Draw what a message costs by its size."""
    lines(plot, found)
    plot.set_xscale("symlog", base=2, linthresh=16)
    plot.set_yscale("log", base=2)
    plot.yaxis.set_major_formatter("{x:g}")
    ticks = sorted({int(f.case.at or 0) for f in found})
    plot.set_xticks(ticks, [_bytes(tick) for tick in ticks])
    plot.minorticks_off()
    plot.set_title("A message by its size")
    plot.set_xlabel("bytes in the body")
    plot.set_ylabel("sender() + receiver(),\nin times of 64 bytes without policy")


def _bytes(size: int) -> str:
    return f"{size >> 10} Ki" if size >= 1024 else str(size)


def peers(plot: Any, found: Sequence[Finding]) -> None:
    """Draw what the peers take, in times of pympi."""
    checks = found[0].case.axis == "check"
    entries = sorted(map(_inverse, found), key=lambda entry: entry[1])
    names = [name for _, _, _, name in entries]
    for place, (first, middle, third, _) in enumerate(entries):
        color = GREY if middle < 1 else OURS
        spread = [[middle - first], [third - middle]]
        plot.barh(place, middle - 1, 0.6, left=1, color=color, xerr=spread, **WHISKERS)
        note(plot, figure_of(middle), max(third, 1), place)
    plot.set_yticks(range(len(names)), names)
    plot.set_xscale("log")
    plot.set_xlim(min(0.9, entries[0][0] / 1.5), max(entries[-1][2], 1) * 3)
    plot.xaxis.set_major_formatter("{x:,g}")
    plot.axvline(1, color="black", linewidth=1)
    plot.grid(axis="y", visible=False)
    ours = "checker(), cached" if checks else "sender() + receiver(), no policy"
    what = "One check, a hundred rules" if checks else "A message of 64 bytes, one thread"
    plot.set_title(f"{what}: others beside pympi")
    plot.set_xlabel(f"time, in times of pympi's {ours}\n(left of the line: faster than pympi)")


def _inverse(finding: Finding) -> tuple[float, float, float, str]:
    first, middle, third = (1 / value for value in reversed(finding.result.quartiles))
    return first, middle, third, finding.result.row.against


PICTURES: Mapping[str, tuple[tuple[str, ...], tuple[Picture, ...]]] = {
    "stacks": (("stack", "stack-c"), (stacks,)),
    "ports": (("ports",), (growing("A message to one of many ports", "ports in the kernel"),)),
    "tasks": (("tasks",), (growing("A message from one of many tasks", "tasks in the kernel"),)),
    "labels": (("labels",), (labels,)),
    "growth": (("growth",), (growing(*GROWTH), memory)),
    "kernels": (("kernels",), (kernels,)),
    "sizes": (("size",), (sizes,)),
    "peers": (("peer",), (peers,)),
    "checks": (("check",), (peers,)),
}
"""Name of the picture, the axes in it, what draws each of its parts."""
