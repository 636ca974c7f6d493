# SPDX-License-Identifier: BSD-2-Clause
"""Pictures of a run, by matplotlib, which the extra `bench` brings."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runs import Finding

__all__ = ["check_available", "draw"]

OURS, CHECKED, GREY = "#1f6f8b", "#c8553d", "#6b7280"
FAR = 3.0
"""In times of the baseline: what is as far off is written, not drawn to scale."""
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
        for name, (axes, picture) in PICTURES.items():
            found = [f for f in findings if f.case.axis in axes and f.result.ratios]
            if not found:
                continue
            figure = Figure(figsize=(8, 4.8), dpi=120)
            picture(figure.subplots(), found)
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


def lines(plot: Any, found: Sequence[Finding]) -> None:
    """Draw series over numbers, with their quartiles."""
    names = dict.fromkeys(finding.case.series for finding in found)
    for series, color in zip(names, (OURS, CHECKED), strict=False):
        own = [finding for finding in found if finding.case.series == series]
        points = sorted((f.case.at or 0, *f.result.quartiles) for f in own)
        at, first, middle, third = (list(column) for column in zip(*points, strict=True))
        plot.plot(at, middle, marker="o", color=color, label=series)
        plot.fill_between(at, first, third, color=color, alpha=0.2, linewidth=0)
    plot.legend(frameon=False)


def ports(plot: Any, found: Sequence[Finding]) -> None:
    """Draw what a message costs by the number of ports."""
    lines(plot, found)
    plot.set_xscale("log")
    plot.xaxis.set_major_formatter("{x:,g}")
    plot.set_ylim(bottom=0)
    plot.set_title("A message to one of many ports, at random")
    plot.set_xlabel("ports in the kernel")
    plot.set_ylabel("send + receive by submit,\nin times of one port without policy")


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


PICTURES: Mapping[str, tuple[tuple[str, ...], Callable[[Any, Sequence[Finding]], None]]] = {
    "stacks": (("stack", "stack-c"), stacks),
    "ports": (("ports",), ports),
    "sizes": (("size",), sizes),
    "peers": (("peer",), peers),
    "checks": (("check",), peers),
}
"""Name of the picture, the axes in it, what draws it."""
