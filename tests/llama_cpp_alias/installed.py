"""pytest -p installed: llama_cpp is spikingbrain_cpp.compat; as many threads as CPUs would starve each other here."""

import sys
from types import ModuleType

from spikingbrain_cpp import compat


class OneThread(compat.Llama):
    def __init__(self, model_path, **options):
        super().__init__(model_path, **{**options, "n_threads": 1, "n_threads_batch": 1})


compat.install()
compat.Llama = OneThread
compat._internals = sys.modules["llama_cpp._internals"] = ModuleType("llama_cpp._internals")  # imported by the tests; those that use it are left out
