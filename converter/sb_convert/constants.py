"""Numbers and names that the whole project agrees on."""

ARCH = "spikingbrain"  # general.architecture of a GGUF, and what its keys begin with
GROUP = 128            # inputs per scale of INT8 weights
DEFAULT_K = 3.0        # spike threshold = mean of the magnitudes / k, where nothing says another
