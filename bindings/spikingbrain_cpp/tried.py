"""What has been run on which system; made by desktop/run_table.py."""

TRIED = {  # platform.system(), platform.machine()
    ("Linux", "x86_64"): "Python package: Debian 12, a Zen 4 (make test); programs: Debian 12, a Zen 4 (make test); integer kernels: Debian 12, a Zen 4 (make test); sb-convert: Debian 12, a Zen 4 (make test)",
    ("Linux", "aarch64"): "Python package: qemu 7.2 (make test-mobile); programs: qemu 7.2 (make test-mobile); integer kernels: qemu 7.2 (make test-mobile); sb-convert: qemu 7.2 (make test-mobile)",
    ("Windows", "AMD64"): "Python package: Wine 8, Python 3.13; programs: Wine 8; integer kernels: Wine 8, each instruction set of a Zen 4; sb-convert: Wine 8, Python 3.13, NumPy 2.1",
    ("Darwin", "arm64"): "Python package: compiled and linked, not yet run; programs: compiled and linked, not yet run; integer kernels: compiled and linked, not yet run; sb-convert: not yet run",
    ("Darwin", "x86_64"): "Python package: compiled and linked, not yet run; programs: compiled and linked, not yet run; integer kernels: compiled and linked, not yet run; sb-convert: not yet run",
}
