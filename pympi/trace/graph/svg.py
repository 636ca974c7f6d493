# SPDX-License-Identifier: BSD-2-Clause
"""Graphviz's SVG made ours: tooltips that browsers show, no DTD, and nothing in it but a picture.

It is parsed and written again, so text is text whatever is in it, and only the elements and
attributes that a picture needs are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape as html
from xml.etree import ElementTree as ET

from .dot import printable

__all__ = ["page", "polish"]

SVG = "http://www.w3.org/2000/svg"
_ELEMENTS = {
    "svg", "g", "title", "path", "polygon", "polyline", "ellipse", "circle", "rect", "text",
    "style", "tspan",
}  # fmt: skip
_ATTRIBUTES = {
    "version", "width", "height", "viewBox", "id", "class", "transform", "fill", "stroke",
    "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "points", "d", "cx", "cy",
    "rx", "ry", "r", "x", "y", "text-anchor", "font-family", "font-size", "font-weight",
    "font-style",
}  # fmt: skip
#: What one points at stands out, without any script.
_STYLE = (
    ".edge:hover path{stroke-width:4}.edge:hover path,.edge:hover polygon{stroke:#000}"
    ".edge:hover polygon{fill:#000}.node:hover path,.node:hover polygon,.node:hover ellipse"
    "{stroke-width:3}"
)


def polish(picture: bytes, tooltips: Mapping[str, str] | None = None) -> bytes:
    """Return Graphviz's SVG with tooltips, by the ids of nodes and edges; None: Graphviz's own."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(picture)  # noqa: S314  # Graphviz wrote it, and expands nothing
    _clean(root)
    for group in root.iter(f"{{{SVG}}}g"):
        title = group.find(f"{{{SVG}}}title")
        if title is not None and tooltips is not None:
            title.text = tooltips.get(group.get("id", ""), "")
            if not title.text:
                group.remove(title)
    style = ET.Element(f"{{{SVG}}}style")
    style.text = _STYLE
    root.insert(0, style)
    return ET.tostring(root, encoding="unicode").encode() + b"\n"


def _clean(element: ET.Element) -> None:
    for name in list(element.attrib):
        if name not in _ATTRIBUTES:
            del element.attrib[name]
    for child in list(element):
        tag = child.tag.removeprefix(f"{{{SVG}}}") if isinstance(child.tag, str) else ""
        if tag in _ELEMENTS:
            _clean(child)
        else:
            element.remove(child)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body{{margin:0;font-family:Helvetica,Arial,sans-serif;background:#fff}}
svg{{display:block;max-width:100%;height:auto;margin:auto}}
</style>
</head>
<body>
{svg}
</body>
</html>
"""


def page(svg: bytes, title: str) -> bytes:
    """Return a page with the picture in it, which needs nothing else and has no script."""
    return _PAGE.format(title=html(printable(title)), svg=svg.decode()).encode()
