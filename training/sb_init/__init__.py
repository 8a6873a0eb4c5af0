"""sb-init: a SpikingBrain checkpoint (gla_swa) from a Transformer's, to be trained on. Needs no PyTorch."""

from .base import Base
from .choices import Choices
from .init import init

__all__ = ["Base", "Choices", "init"]
