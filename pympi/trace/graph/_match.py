# SPDX-License-Identifier: BSD-2-Clause
"""Run by itself, as a process that can be ended: which expressions match which names.

Python's expressions try again and again, so one may take for ever. This file imports nothing of
ours, and says after each expression which names it matched: `rules.py` starts it and waits.
"""

import json
import re
import sys


def main() -> None:
    """Answer the question on stdin, a line for each expression."""
    question = json.load(sys.stdin)
    raw = question["bytes"]
    names = [name.encode("latin-1") if raw else name for name in question["names"]]
    for pattern in question["patterns"]:
        search = re.compile(pattern.encode("latin-1") if raw else pattern).search
        print(json.dumps([at for at, name in enumerate(names) if search(name)]), flush=True)


if __name__ == "__main__":
    main()
