# SPDX-License-Identifier: BSD-2-Clause
"""`python -m pympi`: the command line of the pympi that this Python has."""

import sys

from .cli import main

sys.exit(main())
