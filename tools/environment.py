# SPDX-License-Identifier: BSD-2-Clause
"""Says in one line what a machine lacks for building pympi.

Run as a program, it checks this Python, and with `--venv` also that it can make virtual
environments; it ends with 1 and one line on stderr where something is missing. It runs on
Pythons older than pympi needs, to tell them so.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

OLDEST = (3, 11)
HINT = "on Debian or Ubuntu: apt install gcc python3-dev python3-venv"


def _lacks_python():
    if sys.version_info < OLDEST:
        return f"Python {OLDEST[0]}.{OLDEST[1]} or later (this is {sys.version.split()[0]})"
    return None


def _lacks_compiler():
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    compiler = shlex.split(command)[0]
    return None if shutil.which(compiler) else f"a C compiler ({compiler})"


def _lacks_headers():
    places = [Path(sysconfig.get_path(key)) for key in ("include", "platinclude")]
    if any((place / "Python.h").is_file() for place in places):
        return None
    return f"Python.h (looked for in {places[0]})"


def _lacks_venv():
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        return f"the module {error.name}"
    return None


BUILD_CHECKS = (_lacks_python, _lacks_compiler, _lacks_headers)
VENV_CHECKS = (*BUILD_CHECKS, _lacks_venv)


def complaint(checks=BUILD_CHECKS):
    """Return one line that says what is missing and how to get it, or None if nothing is."""
    missing = [lack for lack in (check() for check in checks) if lack]
    if not missing:
        return None
    return f"pympi cannot be built: missing {', '.join(missing)}; {HINT}"


if __name__ == "__main__":
    sys.exit(complaint(VENV_CHECKS if "--venv" in sys.argv[1:] else BUILD_CHECKS))
