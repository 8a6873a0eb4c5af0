"""llama-cpp-python's names on our package, for its own tests. Exists here only: the package itself has no such alias."""

from types import SimpleNamespace

import spikingbrain_cpp
from spikingbrain_cpp import *  # noqa: F403

from .llama_types import ChatCompletionRequestUserMessage  # noqa: F401

__version__ = "0"


class Llama(spikingbrain_cpp.Llama):
    """Its constructor takes the defaults of the tests: as many threads as CPUs would starve each other here."""

    def __init__(self, model_path, **options):
        super().__init__(model_path, **{**options, "n_threads": 1, "n_threads_batch": 1})
        if options.get("vocab_only"):  # llama-cpp-python opens a context there, too
            self._ctx = SimpleNamespace(ctx=self._model, close=lambda: None)

    @property
    def _is_recurrent(self):
        return self._model.is_recurrent()

    @property
    def _is_hybrid(self):
        return self._model.is_hybrid()
