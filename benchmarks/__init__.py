# SPDX-License-Identifier: BSD-2-Clause
"""What pympi costs, as ratios: `python -m benchmarks`. See docs/performance.md."""
