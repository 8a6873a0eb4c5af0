"""--spike-calibrate: weight scales found on a text sample (paper, sections 3.3 and 5.5), and the perplexity they buy.

Layer by layer: every projection's spikes X [n, in] are recorded with all layers before it in the INT8 found; then each row and group
takes the clipping factor that makes the squared error of its output, d H d^T with d = W - codes x scale and H = X^T X, smallest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .config import ModelConfig
from .constants import GROUP
from .errors import bad
from .files import refuse_placeholder
from .int8 import LARGEST_STORED, own_scales
from .numerics import decoded
from .sources import Tensor, import_torch
from .spike import SpikeKeys
from .vocab_file import write_vocab

FACTORS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8, 0.75)  # of the scale by the largest magnitude
N_PIECES, PIECE, N_HELD_OUT = 128, 512, 16  # pieces to calibrate on and to measure on; tokens in each, fewer of a short text
ROWS = 1024  # of a weight at a time
BATCH = 16   # pieces at a time


def check_requirements(text: Path) -> None:
    """Before anything is read: PyTorch and the tokenizer are installed, and the text is there. ConvertError otherwise."""
    import_torch("--spike-calibrate")
    try:
        import spikingbrain_cpp  # noqa: F401
    except ImportError as e:
        raise bad("--spike-calibrate", "spikingbrain_cpp", str(e), "the installed package (its tokenizer)", "pip install it, or leave the option out") from None
    if not text.is_file():
        raise bad(text, "file", "nothing", "a text to calibrate on", "give a UTF-8 text file")
    refuse_placeholder(text, "a text to calibrate on")


def tokenize(folder: Path, text: bytes) -> list[int]:
    """Token ids of a text under a checkpoint's tokenizer."""
    from spikingbrain_cpp import Llama
    with tempfile.TemporaryDirectory() as tmp:
        vocab = Path(tmp) / "vocab.gguf"
        write_vocab(folder, vocab)
        llm = Llama(model_path=str(vocab), vocab_only=True, verbose=False)
        try:
            return llm.tokenize(text)
        finally:
            llm.close()


def calibrated(folder: Path, text: Path, config: ModelConfig, tensors: dict[str, Tensor], names: list[str], keys: SpikeKeys,
               say: Callable[[str], None]) -> dict[str, Tensor]:
    """Scales of the named weights, as a W8ASpike checkpoint would hold them."""
    torch = import_torch("--spike-calibrate")
    from .reference import Model, Spike
    sample, held_out = pieces(tokenize(folder, text.read_bytes()), text)
    state = {n: torch.from_numpy(np.array(t.rows(0, t.shape[0]))) for n, t in tensors.items() if not config.tie_word_embeddings or n != "lm_head.weight"}

    def model(spike: Any) -> Any:  # at most one beside the checkpoint's own values
        with torch.device("meta"):
            made = Model(config, spike)
        made.load_state_dict(state, assign=True)
        return made.eval()
    spiking = model(Spike(keys.k, keys.scope))
    with torch.no_grad():
        start = spiking.start()  # where there are sinks, as the file will have them: of the checkpoint's own weights
        say(f"calibrate: {sample.shape[0]} pieces of {sample.shape[1]} tokens; perplexity on {len(held_out)} others:")
        say(f"calibrate: {perplexity(model(None), held_out):10.4f}  ordinary activations, the checkpoint's weights")
        weights = {name: spiking.get_parameter(name) for name in names}
        for name, w in weights.items():
            w.data = coded(w.data, torch.from_numpy(own_scales(w.data.view(len(w), -1, GROUP).numpy())))
        say(f"calibrate: {perplexity(spiking, held_out, start):10.4f}  spikes and INT8, scales by the largest magnitude")
        scales: dict[str, Tensor] = {}
        x = [spiking.model.embeddings(batch) for batch in sample.split(BATCH)]
        for il in range(config.num_hidden_layers):
            def run(h: Any, il: int = il) -> Any:
                return spiking.model.layers[il](h, torch.arange(h.shape[1]) + config.n_sinks, start.layers[il], spiking.bound(il))[0]
            for name, H in recorded(spiking.model.layers[il], il, names, x, keys.k, run).items():
                best = best_scales(state[name], H)
                weights[name].data = coded(state[name], best)
                scales[name] = Tensor(name, (*best.shape, 1), "F32", best[..., None].numpy(), tensors[name].file)
            x = [run(h) for h in x]
        say(f"calibrate: {perplexity(spiking, held_out, start):10.4f}  spikes and INT8, scales found")
    return scales


def pieces(tokens: list[int], text: Path) -> tuple[Any, Any]:
    """Of a text's tokens: pieces to calibrate on [N_PIECES, length], and others to measure on [N_HELD_OUT, length]. ConvertError: too short a text."""
    torch = import_torch("--spike-calibrate")
    length = min(PIECE, len(tokens) // (N_PIECES + N_HELD_OUT))
    if length < 16:
        raise bad(text, "text", f"{len(tokens)} tokens", f"at least {16 * (N_PIECES + N_HELD_OUT)}", "give a longer text")
    cut = torch.tensor(tokens[:length * (N_PIECES + N_HELD_OUT)]).view(-1, length)
    held_out = torch.arange(len(cut)) % (len(cut) // N_HELD_OUT) == 0  # spread over the text
    return cut[~held_out], cut[held_out]


def perplexity(model: Any, held_out: Any, start: Any = None) -> float:
    """Of the reference on pieces [n, length], each begun at `start` (None: as the model begins)."""
    import torch.nn.functional as F
    start = start or model.start()
    losses = [float(F.cross_entropy(model(piece[None, :-1], start)[0][0].double(), piece[1:])) for piece in held_out]
    return float(np.exp(np.mean(losses)))


def recorded(layer: Any, il: int, names: list[str], x: list[Any], k: float, run: Callable[[Any], Any]) -> dict[str, Any]:
    """H [in / GROUP, GROUP, GROUP] of each projection's spiking inputs while the layer runs on x; 0 of an expert that nothing chose."""
    torch = import_torch("--spike-calibrate")
    from .reference import spiked

    def hook(name: str) -> Callable[..., None]:
        def add(module: Any, inputs: tuple[Any, ...]) -> None:
            s = spiked(inputs[0].flatten(0, -2), k).unflatten(-1, (-1, GROUP)).transpose(0, 1)  # [groups, n, GROUP]
            held[name] += s.transpose(1, 2) @ s
        return add
    own = f"model.layers.{il}."
    modules = {n: layer.get_submodule(n.removeprefix(own).removesuffix(".weight")) for n in names if n.startswith(own)}
    held = {n: torch.zeros(m.in_features // GROUP, GROUP, GROUP) for n, m in modules.items()}
    hooks = [m.register_forward_pre_hook(hook(n)) for n, m in modules.items()]
    for h in x:
        run(h)
    for handle in hooks:
        handle.remove()
    return held


def best_scales(weight: Any, H: Any) -> Any:
    """[out, in / GROUP]: of FACTORS, the one with the smallest output error for each row and group."""
    torch = import_torch("--spike-calibrate")
    out = []
    for w in weight.view(len(weight), -1, GROUP).split(ROWS):
        base = torch.from_numpy(own_scales(w.numpy()))
        errors = []
        for factor in FACTORS:
            d = w - coded(w.flatten(1), base * factor).view_as(w)
            errors.append(torch.einsum("ogi,gij,ogj->og", d, H, d))
        out.append(base * torch.tensor(FACTORS)[torch.stack(errors).argmin(0)])
    return torch.cat(out)


def coded(weight: Any, scales: Any) -> Any:
    """Of a weight [out, in] and scales [out, in / GROUP], both PyTorch's: what its INT8 codes, clipped at +-127, are worth."""
    codes = (weight.view(*scales.shape, GROUP) / scales[..., None]).round().clamp(-LARGEST_STORED, LARGEST_STORED)
    return decoded(codes.view_as(weight), scales)
