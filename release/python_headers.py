"""This Python's headers in a folder of their own: `python python_headers.py FOLDER` (release/build-wheel.sh runs it).

Debian's pyconfig.h includes the architecture's from below /usr/include, where the compiler must not look: that one is copied in its place.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from pathlib import Path


def main(target: str) -> None:
    headers, folder = Path(sysconfig.get_path("include")), Path(target)
    if not (headers / "Python.h").is_file():
        sys.exit(f"python_headers: {headers}: got no Python.h, expected Python's headers; do apt-get install -y python3-dev (as root)")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(headers, folder)
    config = folder / "pyconfig.h"
    for name in re.findall(rf"#\s*include <({re.escape(sysconfig.get_config_var('MULTIARCH') or 'none')}/[^>]+)>", config.read_text()):
        shutil.copy(headers.parent / name, config)


if __name__ == "__main__":
    main(sys.argv[1])
