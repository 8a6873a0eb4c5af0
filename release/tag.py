"""auditwheel for a wheel of any architecture: `python tag.py WHEEL PLATFORM FOLDER` (release/build-wheel.sh runs it).

Checks that WHEEL asks for nothing newer than PLATFORM, such as manylinux_2_28_aarch64, and leaves it in FOLDER with that tag. auditwheel
itself offers the platforms of the machine it runs on only, though it reads wheels of all.
"""

from __future__ import annotations

import platform
import sys


def main(wheel: str, tag: str, folder: str) -> int:
    architecture = "x86_64" if tag.endswith("_x86_64") else tag.rsplit("_", 1)[1]
    platform.machine = lambda: architecture  # all that auditwheel asks of the machine
    sys.argv = ["auditwheel", "repair", "--plat", tag, "--only-plat", "-w", folder, wheel]
    from auditwheel.main import main as auditwheel

    return auditwheel() or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
