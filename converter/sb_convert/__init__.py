"""sb-convert: SpikingBrain checkpoints to GGUF. `reference` holds the plain PyTorch model (needs torch)."""

from .config import Config
from .errors import ConvertError

__all__ = ["Config", "ConvertError"]
