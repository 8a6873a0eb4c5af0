"""SpikingBrain in plain PyTorch: the definition that the C++ graph, the converter and training are held to.

Reads and writes the published checkpoint format: module names are the checkpoint's tensor names.
No CUDA, triton, fla or flash-attn. Shapes: B batch, T tokens, H query heads, K key/value heads, G = H / K, D head size.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .config import Config
from .files import read_json

GROUP = 128  # inputs per weight scale
CHUNK = 16   # tokens per step of the chunked recurrence; 16 is the fastest of 8, 16, 32, 64 at D = 64


@dataclass(frozen=True)
class Spike:
    """The spiking variant. scope `paper`: every projection; `released`: the mlp's down projection stays ordinary."""
    k: float = 3.0
    scope: str = "paper"


# --- pieces ---------------------------------------------------------------------------------------------------

def spike(x: Tensor, k: float) -> tuple[Tensor, Tensor]:
    """Counts s [..., n] (integers held in float) and thresholds v_th [..., 1] of each row; x is about v_th * s."""
    v_th = (x.abs().mean(-1, keepdim=True) / k).clamp(1e-5, 1e4)
    return torch.round(x / v_th), v_th  # torch.round is half to even


def spiked(x: Tensor, k: float) -> Tensor:
    s, v_th = spike(x, k)
    return s * v_th


def rounded_int8(x: Tensor) -> Tensor:
    """Symmetric INT8 per row (one token, one head), back in float."""
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(1e-5, 1e4)
    return torch.round(x / scale) * scale


def rope(x: Tensor, pos: Tensor, theta: float) -> Tensor:
    """Half-rotation form over the whole head. x [B, H, T, D], pos [T]."""
    half = x.shape[-1] // 2
    freq = theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = pos[:, None].float() * freq  # [T, D / 2]
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def gla_recurrent(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(g_t)) S_{t-1} + k_t^T v_t; o_t = q_t S_t. q [B, K, G, T, D], k v g [B, K, T, D], S [B, K, D, D]."""
    out = []
    for t in range(q.shape[3]):
        S = g[:, :, t, :, None].exp() * S + k[:, :, t, :, None] * v[:, :, t, None, :]
        out.append(q[:, :, :, t] @ S)
    return torch.stack(out, dim=3), S


def gla_chunked(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """The same in N chunks of C = CHUNK tokens, all at once but for the state between them. With b the running sum of g in
    a chunk, token i reads token j <= i through exp(b_i - b_j) <= 1, and the state before the chunk through exp(b_i):
    nothing can overflow, whatever the gates. Padding (k = 0, g = 0) leaves the state as it is."""
    n_tokens, pad = q.shape[3], -q.shape[3] % CHUNK
    q, k, v, g = (F.pad(x, (0, 0, 0, pad)).unflatten(-2, (-1, CHUNK)) for x in (q, k, v, g))  # [..., N, C, D]
    b = g.cumsum(-2)
    later = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=b.device).triu(1)[:, :, None]
    decay = (b[..., :, None, :] - b[..., None, :, :]).masked_fill(later, float("-inf")).exp()  # [B, K, N, i, j, D]
    A = torch.einsum("zhgnid,zhnijd->zhgnij", q, decay * k[..., None, :, :])
    last, before = b[..., -1:, :], []
    added = (k * (last - b).exp()).transpose(-1, -2) @ v                                       # [B, K, N, D, D]
    for n in range(added.shape[2]):
        before.append(S)
        S = last[:, :, n].exp().transpose(-1, -2) * S + added[:, :, n]
    o = A @ v[:, :, None] + (q * b.exp()[:, :, None]) @ torch.stack(before, 2)[:, :, None]
    return o.flatten(3, 4)[:, :, :, :n_tokens], S


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Scales(nn.Module):
    """Holds the buffer `<projection>.weight_quantizer.scales` [out, in / GROUP, 1]."""
    def __init__(self, n_out: int, n_in: int):
        super().__init__()
        self.register_buffer("scales", torch.ones(n_out, n_in // GROUP, 1))


class Projection(nn.Linear):
    """y = W x + b. Spiking: x becomes v_th * s, and W its integer codes times their scales where there are scales."""
    def __init__(self, n_in: int, n_out: int, bias: bool, spike: Spike | None = None, scales: bool = False):
        super().__init__(n_in, n_out, bias)
        self.spike = spike
        self.weight_quantizer = Scales(n_out, n_in) if scales else None

    def coded_weight(self) -> Tensor:
        if self.weight_quantizer is None:
            return self.weight
        scales = self.weight_quantizer.scales
        groups = self.weight.view(*scales.shape[:2], GROUP)
        return (torch.round(groups / scales) * scales).view_as(self.weight)  # not clamped: codes may leave int8

    def forward(self, x: Tensor) -> Tensor:
        if self.spike is None:
            return F.linear(x, self.weight, self.bias)
        return F.linear(spiked(x, self.spike.k), self.coded_weight(), self.bias)


# --- layers ---------------------------------------------------------------------------------------------------

class Attention(nn.Module):
    """What both kinds share: projections and heads."""
    def __init__(self, c: Config, spike: Spike | None, scales: bool):
        super().__init__()
        self.c, self.spike = c, spike
        self.q_proj = Projection(c.hidden_size, c.hidden_size, True, spike, scales)
        self.k_proj = Projection(c.hidden_size, c.kv_size, True, spike, scales)
        self.v_proj = Projection(c.hidden_size, c.kv_size, True, spike, scales)
        self.o_proj = Projection(c.hidden_size, c.hidden_size, False, spike, scales)

    def heads(self, x: Tensor) -> Tensor:  # [B, T, n * D] -> [B, n, T, D]
        return x.unflatten(-1, (-1, self.c.head_dim)).transpose(1, 2)

    def merged(self, x: Tensor) -> Tensor:  # [B, K, G, T, D] -> [B, T, H * D]
        return x.flatten(1, 2).transpose(1, 2).flatten(2)

    def grouped(self, q: Tensor) -> Tensor:  # [B, H, T, D] -> [B, K, G, T, D]
        return q.unflatten(1, (self.c.num_key_value_heads, -1))


class GatedLinearAttention(Attention):
    def __init__(self, c: Config, spike: Spike | None, scales: bool):
        super().__init__(c, spike, scales)
        rank = c.gate_low_rank_dim
        if rank:  # stays in floating point in the spiking variant too
            self.gk_proj = nn.Sequential(nn.Linear(c.hidden_size, rank, False), nn.Linear(rank, c.kv_size, True))
        else:
            self.gk_proj = Projection(c.hidden_size, c.kv_size, True, spike, scales)
        self.g_norm = RMSNorm(c.head_dim, c.norm_eps)

    def forward(self, h: Tensor, pos: Tensor, S: Tensor | None) -> tuple[Tensor, Tensor]:
        q = self.grouped(self.heads(self.q_proj(h).relu())) * self.c.head_dim ** -0.5
        k, v = self.heads(self.k_proj(h).relu()), self.heads(self.v_proj(h))
        g = F.logsigmoid(self.heads(self.gk_proj(h)).float()) / self.c.gate_logit_normalizer
        if S is None:
            S = q.new_zeros(*k.shape[:2], self.c.head_dim, self.c.head_dim)
        o, S = (gla_recurrent if q.shape[3] == 1 else gla_chunked)(q, k, v, g, S)
        return self.o_proj(self.merged(self.g_norm(o))), S


class SlidingWindowAttention(Attention):
    def forward(self, h: Tensor, pos: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Any]:
        w, theta = self.c.sliding_window, self.c.rope_theta
        q, k, v = rope(self.heads(self.q_proj(h)), pos, theta), rope(self.heads(self.k_proj(h)), pos, theta), self.heads(self.v_proj(h))
        if self.spike is not None:
            q, k, v = spiked(q, self.spike.k), rounded_int8(k), rounded_int8(v)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        key_pos = torch.arange(k.shape[2], device=h.device) + pos[-1] + 1 - k.shape[2]
        age = pos[:, None] - key_pos                                           # [T, n_keys]
        scores = self.grouped(q) @ k[:, :, None].transpose(-1, -2) * self.c.head_dim ** -0.5
        p = scores.masked_fill((age < 0) | (age >= w), float("-inf")).softmax(-1)
        return self.o_proj(self.merged(p @ v[:, :, None])), (k[:, :, -w:], v[:, :, -w:])


class MLP(nn.Module):
    def __init__(self, c: Config, spike: Spike | None, scales: bool):
        super().__init__()
        down = spike if spike is not None and spike.scope == "paper" else None
        self.gate_proj = Projection(c.hidden_size, c.intermediate_size, False, spike, scales)
        self.up_proj = Projection(c.hidden_size, c.intermediate_size, False, spike, scales)
        self.down_proj = Projection(c.intermediate_size, c.hidden_size, False, down, scales)

    def forward(self, m: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(m)) * self.up_proj(m))


class Layer(nn.Module):
    def __init__(self, c: Config, il: int, spike: Spike | None, scales: bool):
        super().__init__()
        self.attn_norm = RMSNorm(c.hidden_size, c.norm_eps)
        self.attn = (GatedLinearAttention if c.is_gla(il) else SlidingWindowAttention)(c, spike, scales)
        self.mlp_norm = RMSNorm(c.hidden_size, c.norm_eps)
        self.mlp = MLP(c, spike, scales)

    def forward(self, x: Tensor, pos: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.attn(self.attn_norm(x), pos, state)
        x = x + y
        return x + self.mlp(self.mlp_norm(x)), state


# --- model ----------------------------------------------------------------------------------------------------

@dataclass
class State:
    """n tokens seen; per layer None, S [B, K, D, D] (gla) or keys and values [B, K, <= window, D] (swa)."""
    n: int
    layers: list[Any]


class Model(nn.Module):
    def __init__(self, config: Config, spike: Spike | None = None, scales: bool = False):
        super().__init__()
        self.config, self.spike = config, spike
        self.model = nn.Module()
        self.model.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Layer(config, il, spike, scales) for il in range(config.num_hidden_layers))
        self.model.norm = RMSNorm(config.hidden_size, config.norm_eps)
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens [B, T] -> logits [B, T, vocab] and the state after them; pass it back to go on."""
        state = state or State(0, [None] * self.config.num_hidden_layers)
        pos = torch.arange(tokens.shape[1], device=tokens.device) + state.n
        x, after = self.model.embeddings(tokens), []
        for layer, s in zip(self.model.layers, state.layers):
            x, s = layer(x, pos, s)
            after.append(s)
        head = self.model.embeddings if self.lm_head is None else self.lm_head
        return F.linear(self.model.norm(x), head.weight), State(state.n + tokens.shape[1], after)

    @torch.no_grad()
    def init_weights(self, seed: int | None = None) -> "Model":
        """Normal(0, initializer_range) matrices, zero biases, unit norms; a fixed seed gives the same weights."""
        gen = None if seed is None else torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                p.copy_(torch.randn(p.shape, generator=gen) * self.config.initializer_range)
            else:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
        return self

    @classmethod
    def from_pretrained(cls, folder: str | Path, spike: Spike | None | str = "auto", dtype: torch.dtype = torch.float32) -> "Model":
        """spike "auto": scope `released` for a checkpoint that carries weight scales, none for any other."""
        tensors = read_tensors(Path(folder))
        config = Config.load(Path(folder))
        gate = tensors.get(next((n for n in tensors if n.endswith("gk_proj.0.weight")), ""))
        config = dataclasses.replace(config, gate_low_rank_dim=0 if gate is None else gate.shape[0])
        scales = any(n.endswith("weight_quantizer.scales") for n in tensors)
        if spike == "auto":
            spike = Spike(scope="released") if scales else None
        if config.tie_word_embeddings:
            tensors.pop("lm_head.weight", None)
        model = cls(config, spike, scales).to(dtype)
        model.load_state_dict(tensors)
        return model.eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, max_shard_bytes: int = 0) -> None:
        """config.json and model.safetensors; with max_shard_bytes, shards and their index."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {**self.config.to_json(), "torch_dtype": str(dtype).removeprefix("torch.")}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        write_tensors(folder, {n: t.detach().to(dtype).contiguous() for n, t in self.state_dict().items()}, max_shard_bytes)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    files = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for name in files:
        with safe_open(folder / name, framework="pt") as f:
            tensors.update({key: f.get_tensor(key) for key in f.keys() if not key.endswith(".inv_freq")})  # rope_theta again
    return tensors


def write_tensors(folder: Path, tensors: dict[str, Tensor], max_shard_bytes: int = 0) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    for name, t in tensors.items():
        held = sum(x.nbytes for x in shards[-1].values())
        if max_shard_bytes and held and held + t.nbytes > max_shard_bytes:
            shards.append({})
        shards[-1][name] = t
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        weight_map = {t: name for name, shard in zip(names, shards) for t in shard}
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    for name, shard in zip(names, shards):
        save_file(shard, folder / name, metadata={"format": "pt"})
