"""Instructions that the kernels execute on ARM, counted under qemu: `python -m mobile.arm64.count` (README.md)."""
