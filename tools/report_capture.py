# SPDX-License-Identifier: BSD-2-Clause
"""Takes a picture of the report of `pympi demo` in a browser: tools/report_capture.py FILE.png"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from pympi.cli import main

SIZE = {"width": 1200, "height": 860}


def capture(picture: Path) -> None:
    """Run the demo, open its report, point at what was refused, and take the picture."""
    program = shutil.which("chromium") or sys.exit("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as driver:
        run = Path(directory) / "demo"
        main(["demo", "--out", str(run), "--json"])
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = driver.chromium.launch(executable_path=program, args=sandbox)
        page = browser.new_page(viewport=SIZE, color_scheme="light", device_scale_factor=0.8)
        page.goto((run / "report.html").as_uri())
        page.locator("#edges tbody tr").filter(has_text="refused").first.dispatch_event(
            "pointerover", {"bubbles": True}
        )
        page.locator("#edges").dispatch_event("pointerleave")  # the details stay
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    capture(Path(sys.argv[1]))
