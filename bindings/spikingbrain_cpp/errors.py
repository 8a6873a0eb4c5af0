"""The exceptions of this package. Messages read `where: what: got X, expected Y; do Z`.

ValueError (the built-in) is raised for an argument that cannot be used, TypeError for one of a wrong type or unknown.
"""


class LlamaError(RuntimeError):
    """The model, the file or the object is in no state to do what was asked."""


class ModelNotFoundError(FileNotFoundError, ValueError):
    """model_path names no file. Also a ValueError, which is what llama-cpp-python raises."""


class ModelLoadError(LlamaError, ValueError):
    """The file is no GGUF, is cut short, or llama.cpp refuses what is in it. Also a ValueError, as above."""


class Cancelled(LlamaError):
    """The call was cancelled, by Llama.cancel() or its CancelToken; the sequence holds the micro-batches that were finished."""
