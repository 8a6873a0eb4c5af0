"""llama_cpp.llama_speculative."""

from ..llama_speculative import LlamaDraftModel as LlamaDraftModel, LlamaPromptLookupDecoding as LlamaPromptLookupDecoding
