# SPDX-License-Identifier: BSD-2-Clause
"""Rates over time as SVG: messages above, refusals below, on one axis."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .markup import Markup, element
from .tally import Rates

__all__ = ["duration", "rates_chart"]

WIDTH, MESSAGES, GAP, REFUSED, AXIS = 1000.0, 120.0, 16.0, 44.0, 22.0
LEFT = 78.0
_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))


def duration(nanoseconds: float) -> str:
    """Return a time for people.

    Example:
        >>> duration(0), duration(1500), duration(2e9)
        ('0', '1.5 µs', '2 s')
    """
    for size, unit in _UNITS:
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return "0"


def rates_chart(rates: Rates) -> Markup:
    """Return the picture; its data are for the script, in `data` of the page."""
    used = max(rates.used, 1)
    step = (WIDTH - LEFT) / used
    sent, refused = rates.sent[:used], rates.refused[:used]
    any_refused = bool(refused.any())
    bottom = MESSAGES + (GAP + REFUSED if any_refused else 0.0)
    title = (
        f"{int(sent.sum()):,} messages and {int(refused.sum()):,} refusals "
        f"in {duration(rates.duration)}"
    )
    return element(
        "svg",
        _row(sent, 0.0, MESSAGES, step, "sent", "messages"),
        _row(refused, MESSAGES + GAP, REFUSED, step, "refused", "refused") if any_refused else "",
        *_ticks(rates, step, used, bottom),
        element(
            "rect", id="cursor", class_="cursor", x="0", y="0", width=f"{step:.2f}",
            height=f"{bottom:.1f}", visibility="hidden",
        ),
        id="rates", viewBox=f"0 0 {WIDTH:.0f} {bottom + AXIS:.0f}", role="img",
        aria_label=title, tabindex=0, data_left=LEFT, data_step=f"{step:.6f}", data_used=used,
        data_width=rates.width,
    )  # fmt: skip


def _row(
    counts: npt.NDArray[np.int64], top: float, height: float, step: float, kind: str, what: str
) -> Markup:
    """Bars, their base line, and what the highest one means."""
    most = int(counts.max(initial=0))
    scale = height / _rounded(most) if most else 0.0
    bars = "".join(
        f"M{LEFT + at * step:.2f} {top + height:.1f}v-{count * scale:.2f}h{step * 0.86:.2f}v"
        f"{count * scale:.2f}z"
        for at, count in enumerate(counts.tolist()) if count
    )  # fmt: skip
    base = f"{top + height:.1f}"
    return element(
        "g",
        element("path", class_="grid", d=f"M{LEFT} {base}H{WIDTH}M{LEFT} {top + 0.5:.1f}H{WIDTH}"),
        element("path", class_=kind, d=bars or "M0 0"),
        element("text", f"{_rounded(most):,}", x=LEFT - 8, y=f"{top + 10:.1f}", text_anchor="end"),
        element("text", what, x=LEFT - 8, y=f"{top + height - 1:.1f}", text_anchor="end"),
    )  # fmt: skip


def _rounded(most: int) -> int:
    """Return a round number that is not below."""
    if most <= 10:
        return max(most, 1)
    size = 10 ** (int(math.log10(most)) - 1)
    return int(-(-most // (5 * size)) * 5 * size)


def _ticks(rates: Rates, step: float, used: int, bottom: float) -> list[Markup]:
    whole = used * rates.width
    places = [0.0, 0.25, 0.5, 0.75, 1.0]
    anchors = ["start", "middle", "middle", "middle", "end"]
    return [
        element(
            "text", duration(whole * place), x=f"{LEFT + used * step * place:.1f}",
            y=f"{bottom + 15:.1f}", text_anchor=anchor,
        )
        for place, anchor in zip(places, anchors, strict=True)
    ]  # fmt: skip
