"""sb-convert --verify: is the written file the checkpoint, and does the fork compute what the reference does?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from .config import ModelConfig, ParallelConfig
from .constants import GROUP
from .convert import Options, Result, convert
from .errors import bad
from .formats import decode, error_bound, rows_per_block
from .int8 import LARGEST_STORED, PARTS, Part, own_scales
from .numerics import decoded, kl_divergence
from .plan import Plan, Planned
from .sources import import_torch
from .tensors import BOUNDS, CONSTANTS, PROJECTIONS

N_TOKENS = 96  # tokens of the logit check; past the window where that is shorter
# fork against the reference on the SAME dequantised weights: what is left is the fork's activation and window types.
# measured on golden-float, whose boosted channel exaggerates it (README.md); a wrong graph is at 1e-1 and above.
MAX_LOGIT = {"f32": 2e-3}                                        # largest difference of any logit
MEAN_KL = {"f32": 1e-5, "f16": 1e-3, "bf16": 3e-2, "q8_0": 1e-1, "q4_0": 1e-1, "int8": 1e-1}
# spiking: integer products are exact but for counts that flip at rounding boundaries; F16 and BF16 products round v_th * count,
# and the output product its input
MEAN_KL_SPIKE = {"f32": 1e-3, "f16": 1e-2, "bf16": 1e-2, "q8_0": 1e-2, "q4_0": 1e-2, "int8": 1e-3}
MEAN_KL_SPIKE_MOE = 1e-1  # a count that flips may send a row to another expert
# a count or an expert on an edge moves all after it (README.md). Such a text, of which the reference, its embeddings moved by up to EDGE of their size, gets
# at least 1 / MARGIN as far from itself, is no verdict: N_TEXTS - 1 others are tried. Where all have one, MARGIN times the median is allowed by which DISTURBANCE moves it
N_TEXTS, EDGE, EDGE_TRIES, DISTURBANCE, MARGIN = 5, 1e-4, 4, 1e-6, 2
MAX_CONSTANT = 1e-5  # of the sinks, relative to the largest; both sides compute in float64, so that no count flips


def check_requirements() -> None:
    """Before the conversion: PyTorch and the package are installed. ConvertError otherwise."""
    import_torch("--verify")
    try:
        import spikingbrain_cpp  # noqa: F401
    except ImportError as e:
        raise bad("--verify", "spikingbrain_cpp", str(e), "the installed package", "pip install it, or leave --verify out") from None


def verify(folder: Path, result: Result, say=print) -> bool:
    """All parts; says what it finds and returns whether all of it is right."""
    return verify_tensors(result, say) and verify_sinks(Path(folder), result, say) and verify_logits(Path(folder), result, say)


# --- part 1: tensors ------------------------------------------------------------------------------------------

@dataclass
class Stored:
    """The tensors of the written file or files, by name, as maps."""
    by_name: dict[str, Any]

    @classmethod
    def open(cls, files: list[Path]) -> "Stored":
        """files: all parts of one model."""
        return cls({t.name: t for f in files for t in gguf.GGUFReader(f).tensors})

    def data(self, name: str) -> Any:
        """Its rows as stored; those of a stack one after the other."""
        data = self.by_name[name].data
        return data.reshape(-1, data.shape[-1]) if data.ndim > 2 else data

    def rows(self, name: str, start: int, stop: int | None) -> np.ndarray:
        """Rows start..stop, dequantised, [rows, n] (or [n] of a 1-D tensor)."""
        return decode(np.ascontiguousarray(self.data(name)[start:stop]), self.by_name[name].tensor_type)

    def array(self, name: str) -> np.ndarray:
        """All of it, dequantised, in its shape [out, in], of a stack [n, out, in]."""
        shape = tuple(map(int, reversed(self.by_name[name].shape)))
        if self.by_name[name].tensor_type != T.I8:
            return self.rows(name, 0, None).reshape(shape)
        codes, scales = self.codes(name, 0, None)
        return decoded(codes, scales).reshape(shape)

    def codes(self, name: str, start: int, stop: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows start..stop of INT8 weights: codes with their outliers added, float32, and scales."""
        stem, codes = name.removesuffix("weight"), np.array(self.data(name)[start:stop], np.float32)
        if stem + "outlier_index" in self.by_name:
            index, n_in = self.by_name[stem + "outlier_index"].data, codes.shape[1]
            here = slice(*np.searchsorted(index, [start * n_in, start * n_in + codes.size]))
            codes.reshape(-1)[index[here] - start * n_in] += self.by_name[stem + "outlier_value"].data[here]
        return codes, self.data(stem + "scales")[start:stop]


def verify_tensors(result: Result, say=print) -> bool:
    """Every tensor within the block error of its type; names the one nearest to, or furthest beyond, its bound."""
    stored = Stored.open(result.files)
    names = {p.target.gguf for p in result.plan.tensors}
    if set(stored.by_name) != names:
        say(f"verify: tensors: got {len(stored.by_name)} in the file, expected {len(names)}; differing: {sorted(set(stored.by_name) ^ names)[:4]}")
        return False
    worst = sorted(((tensor_error(p, stored), p) for p in result.plan.tensors), key=lambda e: e[0], reverse=True)
    ratio, p = worst[0]
    wrong = [p.target.gguf for r, p in worst if r > 1]
    for name in wrong[:8]:
        say(f"verify: {name}: beyond the error bound of its type; convert again, and report it if it stays")
    say(f"verify: {len(names)} tensors, worst {p.target.gguf} ({p.qtype.name}) at {ratio:.2f} of its error bound: {'WRONG' if wrong else 'ok'}")
    return not wrong


def tensor_error(p: Planned, stored: Stored) -> float:
    """Largest |stored - source| / bound of one tensor; infinite where shape or type differ."""
    t = stored.by_name[p.target.gguf]
    if tuple(map(int, reversed(t.shape))) != p.target.shape or t.tensor_type != p.qtype:
        return float("inf")
    if isinstance(p.source, Part) and p.source.what in PARTS:
        return 0.0 if p.target.kind != "codes" or codes_are_right(p, stored) else float("inf")
    worst, step = 0.0, rows_per_block(p.source.shape)
    for start in range(0, p.source.shape[0], step):
        x = p.source.rows(start, start + step)
        off = np.abs(stored.rows(p.target.gguf, start, start + step) - x)
        bound = error_bound(x, p.qtype)
        ratio = np.divide(off, bound, out=np.where(off > 0, np.inf, 0.0).astype(np.float32), where=bound > 0)
        worst = max(worst, float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0)))
    return worst


def codes_are_right(p: Planned, stored: Stored) -> bool:
    """Of INT8 weights, all their tensors together: the checkpoint's scales, and round(weight / scale) with them, both exactly."""
    codes_of, step = p.source.data, rows_per_block(p.source.shape)
    index = stored.by_name.get(p.target.gguf.removesuffix("weight") + "outlier_index")
    if index is not None and not (np.diff(index.data) > 0).all():
        return False
    for start in range(0, p.source.shape[0], step):
        codes, scales = stored.codes(p.target.gguf, start, start + step)
        groups = codes_of.weight.rows(start, start + step).reshape(*scales.shape, GROUP)
        expected_scales = codes_of.scales.rows(start, start + step)[..., 0] if codes_of.scales is not None else own_scales(groups)
        expected = np.rint(groups / scales[..., None]).reshape(codes.shape)
        if codes_of.clip:
            expected = np.clip(expected, -LARGEST_STORED, LARGEST_STORED)
        if not np.array_equal(scales, expected_scales) or not np.array_equal(codes, expected):
            return False
    return True


# --- part 2: sinks ---------------------------------------------------------------------------------------------

def verify_sinks(folder: Path, result: Result, say=print) -> bool:
    """Their constants are what the reference computes in float64, from the checkpoint's own weights."""
    plan = result.plan
    if not plan.config.n_sinks:
        return True
    torch = import_torch("--verify")
    from .reference import Model
    with torch.no_grad():
        expected = Model.from_pretrained(folder, reference_spike(plan), torch.float64).start().layers
    stored, worst, where = Stored.open(result.files), 0.0, ""
    for il, layer in enumerate(expected):
        for name, x in zip(constants_of(il), layer):
            off = np.abs(stored.array(name) - x[0].numpy()).max() / max(float(x.abs().max()), 1e-30)
            if not off <= worst:
                worst, where = float(off), name
    right = worst <= MAX_CONSTANT
    say(f"verify: constants of {plan.config.n_sinks} sinks against the reference: largest difference {worst:.2g} of the largest value"
        f"{f' ({where})' if where else ''}: {'ok' if right else f'WRONG; expected at most {MAX_CONSTANT:g}'}")
    return right


def constants_of(il: int) -> list[str]:
    """The names of a layer's constants, in the order of the reference's state."""
    return [row.gguf.format(i=il) for row in CONSTANTS]


# --- part 3: logits -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Difference:
    """Of the fork's logits to the reference's: largest single one, mean KL divergence, the worst position."""
    max_logit: float
    mean_kl: float
    position: int

    def ok(self, limits: dict[str, float]) -> bool:
        """Whether it is within limits()."""
        return bool(np.isfinite(self.max_logit)) and self.max_logit <= limits.get("largest difference", np.inf) and self.mean_kl <= limits["mean KL"]


def limits(plan: Plan) -> dict[str, float]:
    """What a right file may differ by, in words and numbers."""
    if spikes(plan):
        return {"mean KL": MEAN_KL_SPIKE_MOE if plan.config.moe_layers else MEAN_KL_SPIKE[plan.outtype]}
    largest = {"largest difference": MAX_LOGIT[plan.outtype]} if plan.outtype in MAX_LOGIT else {}
    return {**largest, "mean KL": MEAN_KL[plan.outtype]}


def spikes(plan: Plan) -> bool:
    """Whether the written model spikes."""
    return plan.spike is not None and plan.spike.enable


@dataclass(frozen=True)
class Comparison:
    """The text whose logits are nearest to the reference's, how many were tried, and what a right file may differ by."""
    best: Difference
    n_texts: int
    allowed: dict[str, float]

    @property
    def right(self) -> bool:
        """Whether the best text is within what is allowed."""
        return self.best.ok(self.allowed)


def verify_logits(folder: Path, result: Result, say=print) -> bool:
    """Says how far the file's logits are from the reference's, and the first layer that is wrong; returns whether all is right."""
    config, found = result.plan.config, compared(result)
    diff, n_tokens = found.best, len(sample_tokens(config))
    text = f"largest difference {diff.max_logit:.2g}, mean KL {diff.mean_kl:.2g}, worst at position {diff.position} of {n_tokens}"
    if found.n_texts > 1:
        text += f" in the best of {found.n_texts} texts"
    limit = ", ".join(f"{what} {most:.3g}" for what, most in found.allowed.items())
    if found.right:
        by_itself = "" if diff.ok(limits(result.plan)) else f"; the reference, disturbed by {DISTURBANCE:g}, allows {limit}"
        say(f"verify: logits against the reference: {text}{by_itself}: ok")
        return True
    say(f"verify: logits against the reference: {text}: WRONG; expected at most {limit}")
    layer = first_wrong_layer(folder, result)
    say(f"verify: the first layer whose output differs is {layer} ({config.mixer(layer)})" + ("; or embedding and output differ" if layer == 0 else ""))
    return False


def compared(result: Result) -> Comparison:
    """The fork with the reference, on one text where that one is within limits(), else on others, as long as the reference gets as far from itself on each."""
    reference, limit = reference_of(result, rounded=True), limits(result.plan)
    diffs: list[Difference] = []
    own: list[Difference] = []
    for seed in range(N_TEXTS):
        tokens = sample_tokens(result.plan.config, seed)
        expected = reference(tokens)

        def moved(by: float, seed: int) -> Difference:
            return difference(reference(tokens, by, seed), expected)
        diffs.append(difference(fork_logits(result.files[0], tokens), expected))
        if diffs[-1].ok(limit) or not any(diffs[-1].ok(scaled(limit, [moved(EDGE, s)])) for s in range(EDGE_TRIES)):
            return Comparison(diffs[-1], len(diffs), limit)
        own.append(moved(DISTURBANCE, seed))
    return Comparison(min(diffs, key=lambda d: d.mean_kl), N_TEXTS, scaled(limit, own))


def scaled(limit: dict[str, float], own: list[Difference]) -> dict[str, float]:
    """What may differ where the reference differs so from itself: MARGIN times the median, no less than limit."""
    moved = {"largest difference": np.median([d.max_logit for d in own]), "mean KL": np.median([d.mean_kl for d in own])}
    return {what: max(most, MARGIN * float(moved[what])) for what, most in limit.items()}


def sample_tokens(config: ModelConfig, seed: int = 0) -> list[int]:
    """Random token ids, more than a window of them where that is short."""
    n = min(max(N_TOKENS, config.sliding_window + 32), 512)
    return np.random.default_rng(seed).integers(0, config.vocab_size, n).tolist()


def fork_logits(path: Path, tokens: list[int]) -> np.ndarray:
    """Logits [n, n_vocab] of the written file, float64."""
    from spikingbrain_cpp import Llama, LlamaError
    try:
        llm = Llama(model_path=str(path), logits_all=True, n_ctx=None, verbose=False)
    except LlamaError as e:
        raise bad("--verify", path.name, str(e).split(";")[0], "a file that can be loaded", "report it") from e
    try:
        llm.eval(tokens)
        return np.array(llm.scores[:len(tokens)], dtype=np.float64)
    finally:
        llm.close()


def reference_logits(result: Result, tokens: list[int], rounded: bool = False) -> np.ndarray:
    """reference_of(result, rounded) of one text."""
    return reference_of(result, rounded)(tokens)


def reference_of(result: Result, rounded: bool = False) -> Callable[..., np.ndarray]:
    """The plain PyTorch model on the weights as the file holds them; rounded: with inputs rounded as the fork's products round them.
    A function of tokens, and by how much of their size to move the embeddings and with which seed, to logits [n, n_vocab], float64."""
    torch = import_torch("--verify")
    from .reference import Model, State
    plan = result.plan
    stored = Stored.open(result.files)
    with torch.device("meta"):
        model = Model(plan.config, reference_spike(plan))
    for name, rounding in (roundings(plan) if rounded else {}).items():
        model.get_submodule(name).rounded = rounding
    model.load_state_dict({name: torch.from_numpy(x) for name, x in checkpoint_of(plan, stored).items()}, assign=True)
    start = None
    if plan.config.n_sinks:  # not computed from these weights
        layers = [[torch.from_numpy(stored.array(name).copy())[None] for name in constants_of(il)] for il in range(plan.config.num_hidden_layers)]
        start = State(0, layers)
    rows = model.model.embeddings.weight

    @torch.no_grad()
    def logits(tokens: list[int], moved: float = 0.0, seed: int = 0) -> np.ndarray:
        noise = torch.rand(rows.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1 if moved else 0
        model.model.embeddings.weight = torch.nn.Parameter(rows * (1 + moved * noise)) if moved else rows
        return model(torch.tensor([tokens]), start)[0][0].double().numpy()
    return logits


def roundings(plan: Plan) -> dict[str, Any]:
    """How the fork's products round the inputs of each projection, by its type: floats to the matrix's own, values that meet blocks or
    codes to INT8 with a scale for each 32 (llama.cpp's, on CPUs without ours, keeps that scale in F16). Counts are what they are."""
    torch = import_torch("--verify")
    floats = {T.F16: torch.float16, T.BF16: torch.bfloat16}

    def blocks(x: Any) -> Any:
        groups = x.unflatten(-1, (-1, 32))
        scale = groups.abs().amax(-1, keepdim=True) / 127
        return (torch.round(groups / scale.clamp(min=1e-30)) * scale).flatten(-2)

    held: dict[str, Any] = {}
    for p in plan.tensors:
        counts = spikes(plan) and p.target.kind != "raw"
        if p.target.kind not in (*PROJECTIONS, "raw", "codes") or p.qtype == T.F32 or counts and p.qtype not in floats:
            continue
        to = floats.get(p.qtype)
        for name in p.target.sources():
            held[name.removesuffix(".weight")] = blocks if to is None else lambda x, to=to: x.to(to).to(x.dtype)
    return held


def reference_spike(plan: Plan) -> Any:
    """How the reference spikes where the plan's model does; None: it does not."""
    from .reference import Spike
    return Spike(plan.spike.k, plan.spike.scope) if plan.spike and spikes(plan) else None


def checkpoint_of(plan: Plan, stored: Stored) -> dict[str, np.ndarray]:
    """The file's weights as a checkpoint's, dequantised; but the lower bounds, of which only sums are stored, as they were read."""
    held: dict[str, np.ndarray] = {}
    if isinstance(plan.config, ParallelConfig) and plan.config.use_lower_bound:
        held[BOUNDS] = np.zeros((plan.config.bound_rows, plan.config.hidden_size), np.float32)
    for p in plan.tensors:
        if p.target.made == "bound":
            held[BOUNDS] = np.array(p.source.members()[0].rows(0, None))
        elif p.target.kind not in ("scales", "outliers", "constant"):
            x = stored.array(p.target.gguf) * np.float32(2 if p.target.made == "half" else 1)
            held |= dict(zip(p.target.sources(), x if p.target.made == "stack" else [x]))
    return held


def difference(got: np.ndarray, expected: np.ndarray) -> Difference:
    """Of logits [n, n_vocab]. ConvertError: the shapes differ."""
    if got.shape != expected.shape:
        raise bad("verify", "logits", f"shape {got.shape}", str(expected.shape), "report it")
    if not np.isfinite(got).all():
        return Difference(float("inf"), float("inf"), int(np.argwhere(~np.isfinite(got))[0][0]))
    kl = kl_divergence(expected, got)
    return Difference(float(np.abs(got - expected).max()), float(kl.mean()), int(kl.argmax()))


def first_wrong_layer(folder: Path, result: Result) -> int:
    """Bisects over models cut after n layers: right up to the one before the answer."""
    low, high = 0, result.plan.config.num_hidden_layers  # cut after `high` layers it differs
    with tempfile.TemporaryDirectory(dir=result.files[0].resolve().parent) as tmp:
        while high - low > 1:
            mid = (low + high) // 2
            spike = dataclasses.replace(result.options.spike, calibrate=None)
            options = Options(Path(tmp) / "cut.gguf", result.plan.outtype, force=True, spike=spike, n_layer=mid)
            cut = convert(folder, options, say=lambda _: None)
            low, high = (mid, high) if compared(cut).right else (low, mid)
    return high - 1
