# SPDX-License-Identifier: BSD-2-Clause
"""What other systems recorded, as audit records, so that the same questions can be asked of it.

    avc       Linux audit's AVC messages: of SELinux, of its userspace servers, and our own
    dbus      D-Bus messages, as `dbus-monitor --pcap` captures them

A file is read twice: first for the words in it, since a class has one list of permissions.
"""

from .avc import avc_batches
from .dbus import dbus_batches

__all__ = ["avc_batches", "dbus_batches"]
