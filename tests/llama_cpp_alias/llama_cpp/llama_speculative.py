from spikingbrain_cpp.llama_speculative import *  # noqa: F403
