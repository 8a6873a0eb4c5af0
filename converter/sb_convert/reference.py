"""SpikingBrain in plain PyTorch: the definition that the C++ graph, the converter and training are held to.

Reads and writes the published checkpoint format: module names are the checkpoint's tensor names.
No CUDA, triton, fla or flash-attn. Shapes: B batch, T tokens, H query heads, K key/value heads, G = H / K, D head size.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config, ModelConfig, MoeConfig, ParallelConfig
from .constants import DEFAULT_K, GROUP
from .numerics import decoded
from .reference_files import read_tensors, write_tensors

CHUNK = 16   # tokens per step of the chunked recurrence; 16 is the fastest of 8, 16, 32, 64 at D = 64


@dataclass(frozen=True)
class Spike:
    """The spiking variant. scope `paper`: every projection; `released`: the mlp's down projection stays ordinary."""
    k: float = DEFAULT_K
    scope: str = "paper"


# --- pieces ---------------------------------------------------------------------------------------------------

def spike(x: Tensor, k: float) -> tuple[Tensor, Tensor]:
    """Counts s [..., n] (integers held in float) and thresholds v_th [..., 1] of each row; x is about v_th * s."""
    v_th = (x.abs().mean(-1, keepdim=True) / k).clamp(1e-5, 1e4)
    return torch.round(x / v_th), v_th  # torch.round is half to even


def spiked(x: Tensor, k: float) -> Tensor:
    """x as a spiking projection reads it: v_th times counts, of the same shape."""
    s, v_th = spike(x, k)
    return s * v_th


def rounded_int8(x: Tensor) -> Tensor:
    """Symmetric INT8 per row (one token, one head), back in float."""
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(1e-5, 1e4)
    return torch.round(x / scale) * scale


def rope(x: Tensor, pos: Tensor, theta: float, factors: Tensor | None = None) -> Tensor:
    """Half-rotation form over the whole head. x [B, H, T, D], pos [T]; factors [D / 2]: what the frequencies are divided by."""
    half, kind = x.shape[-1] // 2, torch.promote_types(x.dtype, torch.float32)
    freq = theta ** (-torch.arange(half, device=x.device, dtype=kind) / half)
    angle = pos[:, None].to(kind) * (freq if factors is None else freq / factors.to(freq))  # [T, D / 2]
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
        """x [..., size], of the same shape."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Scales(nn.Module):
    """Holds the buffer `<projection>.weight_quantizer.scales` [out, in / GROUP, 1]."""
    def __init__(self, n_out: int, n_in: int):
        super().__init__()
        self.register_buffer("scales", torch.ones(n_out, n_in // GROUP, 1))


class Projection(nn.Linear):
    """y = W x + b. Spiking: x becomes v_th * s, and W its integer codes times their scales where there are scales.
    rounded: what the inputs go through last, as in a product that rounds them (--verify)."""
    rounded: Callable[[Tensor], Tensor] | None = None

    def __init__(self, n_in: int, n_out: int, bias: bool, spike: Spike | None = None, scales: bool = False):
        super().__init__(n_in, n_out, bias)
        self.spike = spike
        self.weight_quantizer = Scales(n_out, n_in) if scales else None

    def coded_weight(self) -> Tensor:
        """The weight as the product reads it [out, in]."""
        if self.weight_quantizer is None:
            return self.weight
        scales = self.weight_quantizer.scales[..., 0]
        groups = self.weight.unflatten(-1, (-1, GROUP))
        codes = torch.round(groups.float() / scales.float()[..., None])  # not clamped: they may leave int8
        return decoded(codes.flatten(-2), scales)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        weight = self.weight
        if self.spike is not None:
            x, weight = spiked(x, self.spike.k), self.coded_weight()
        return F.linear(x if self.rounded is None else self.rounded(x), weight, self.bias)


# --- layers ---------------------------------------------------------------------------------------------------

class Heads(nn.Module):
    """What all kinds share: projections to heads, and softmax attention."""
    def __init__(self, c: ModelConfig, il: int, spike: Spike | None, scales: bool):
        super().__init__()
        self.c, self.il, self.spike = c, il, spike
        self.q_proj = Projection(c.hidden_size, c.q_size, c.qkv_bias, spike, scales)
        self.k_proj = Projection(c.hidden_size, c.kv_size, c.qkv_bias, spike, scales)
        self.v_proj = Projection(c.hidden_size, c.kv_size, c.qkv_bias, spike, scales)
        self.q_norm, self.k_norm = (RMSNorm(c.head_dim, c.norm_eps) if c.use_qk_norm else None for _ in "qk")

    def heads(self, x: Tensor) -> Tensor:  # [B, T, n * D] -> [B, n, T, D]
        """[B, T, n D] -> [B, n, T, D]."""
        return x.unflatten(-1, (-1, self.c.head_dim)).transpose(1, 2)

    def qkv(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h [B, T, n_embd] -> queries [B, H, T, D], keys and values [B, K, T, D]; queries and keys normed where the model has it."""
        q, k, v = self.heads(self.q_proj(h)), self.heads(self.k_proj(h)), self.heads(self.v_proj(h))
        return q if self.q_norm is None else self.q_norm(q), k if self.k_norm is None else self.k_norm(k), v

    def merged(self, x: Tensor) -> Tensor:  # [B, K, G, T, D] -> [B, T, H * D]
        """[B, K, G, T, D] -> [B, T, H D]."""
        return x.flatten(1, 2).transpose(1, 2).flatten(2)

    def grouped(self, q: Tensor) -> Tensor:  # [B, H, T, D] -> [B, K, G, T, D]
        """[B, H, T, D] -> [B, K, G, T, D]: query heads by the key/value head they share."""
        return q.unflatten(1, (self.c.num_key_value_heads, -1))

    def softmax_attention(self, h: Tensor, pos: Tensor, past: Any, window: int | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Rows at positions pos after `past`, keys and values [B, K, n, D]: the sinks (positions 0 to m - 1, always seen), then
        the latest text, of which a query sees `window` tokens with its own, None: all."""
        m, theta, factors = self.c.n_sinks, self.c.rope_theta, self.c.rope_factors
        factors = None if factors is None else torch.as_tensor(factors)
        q, k, v = self.qkv(h)
        q, k = rope(q, pos, theta, factors), rope(k, pos, theta, factors)
        if self.spike is not None:
            q, k, v = spiked(q, self.spike.k), rounded_int8(k), rounded_int8(v)
        if past is not None:
            k, v = (torch.cat((held.expand(len(h), -1, -1, -1), new), 2) for held, new in zip(past, (k, v)))
        n_text = k.shape[2] - m
        key_pos = torch.cat((torch.arange(m, device=h.device), torch.arange(n_text, device=h.device) + pos[-1] + 1 - n_text))
        age, w = pos[:, None] - key_pos, window or k.shape[2]                   # [T, n_keys]
        scores = self.grouped(q) @ k[:, :, None].transpose(-1, -2) * self.c.head_dim ** -0.5
        p = scores.masked_fill((key_pos >= m) & ((age < 0) | (age >= w)), float("-inf")).softmax(-1)
        kept = (torch.cat((x[:, :, :m], x[:, :, m:][:, :, -w:]), 2) for x in (k, v))
        return self.merged(p @ v[:, :, None]), tuple(kept)  # type: ignore[return-value]


class Attention(Heads):
    def __init__(self, c: ModelConfig, il: int, spike: Spike | None, scales: bool):
        super().__init__(c, il, spike, scales)
        self.o_proj = Projection(c.q_size, c.hidden_size, False, spike, scales)


class GatedLinearAttention(Attention):
    def __init__(self, c: Config, il: int, spike: Spike | None, scales: bool):
        super().__init__(c, il, spike, scales)
        self.normalizer, rank = c.gate_logit_normalizer, c.gate_low_rank_dim
        if rank:  # stays in floating point in the spiking variant too
            self.gk_proj = nn.Sequential(nn.Linear(c.hidden_size, rank, False), nn.Linear(rank, c.kv_size, True))
        else:
            self.gk_proj = Projection(c.hidden_size, c.kv_size, True, spike, scales)
        self.g_norm = RMSNorm(c.head_dim, c.norm_eps)

    def forward(self, h: Tensor, pos: Tensor, S: Tensor | None, bound: None = None) -> tuple[Tensor, Tensor]:
        """h [B, T, n_embd] after the state S [B, K, D, D] (None: zeros); rows of the same shape, and the state after them."""
        q, k, v = self.qkv(h)
        q, k = self.grouped(q.relu()) * self.c.head_dim ** -0.5, k.relu()
        g = F.logsigmoid(self.heads(self.gk_proj(h)).float()) / self.normalizer
        if S is None:
            S = q.new_zeros(*k.shape[:2], self.c.head_dim, self.c.head_dim)
        o, S = (gla_recurrent if q.shape[3] == 1 else gla_chunked)(q, k, v, g, S)
        return self.o_proj(self.merged(self.g_norm(o))), S


class SlidingWindowAttention(Attention):
    def forward(self, h: Tensor, pos: Tensor, past: tuple[Tensor, Tensor] | None, bound: None = None) -> tuple[Tensor, Any]:
        """h [B, T, n_embd] at positions pos [T] after `past`; rows of the same shape, and the keys and values that stay."""
        o, past = self.softmax_attention(h, pos, past, self.c.sliding_window)
        return self.o_proj(o), past


class SoftmaxBranch(Heads):
    def forward(self, h: Tensor, pos: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Any]:
        """softmax_attention with the layer's window."""
        return self.softmax_attention(h, pos, past, self.c.window(self.il))


class LinearBranch(Heads):
    """S_t = diag(1 - k_t) S_{t-1} + k_t^T v_t; o_t = q_t S_t. Under a lower bound of the decay a state per query head, else one per
    key/value head."""

    def keys(self, z: Tensor, bound: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """k and log(1 - k) [B, states, T, D], without taking 1 - sigmoid(z)."""
        if bound is None:
            return z.sigmoid().clamp(max=self.c.k_clamp_max), F.logsigmoid(-z).clamp(min=math.log1p(-self.c.k_clamp_max) if self.c.k_clamp_max < 1 else -math.inf)
        lb, left = (x.view(-1, 1, self.c.head_dim).to(z.dtype) for x in bound)
        return left * z.sigmoid(), torch.logaddexp(lb.log(), left.log() + F.logsigmoid(-z))

    def forward(self, h: Tensor, S: Tensor | None, bound: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """h [B, T, n_embd] after the state S (None: zeros), under a lower bound of the decay or none (Model.bound); rows of the same shape, and the
        state after them."""
        c, n = self.c, self.c.n_states(self.il)
        q = self.heads(self.q_proj(h))
        q = (q.relu() if c.linear_q_activation == "relu" else q.sigmoid()).unflatten(1, (n, -1)) * c.head_dim ** -0.5
        z, v = (self.heads(x).repeat_interleave(n // c.num_key_value_heads, 1) for x in (self.k_proj(h), self.v_proj(h)))
        k, g = self.keys(z, bound)
        S = q.new_zeros(len(h), n, c.head_dim, c.head_dim) if S is None else S.expand(len(h), -1, -1, -1)
        o, S = (gla_recurrent if q.shape[3] == 1 else gla_chunked)(q, k, v, g, S)
        return self.merged(o), S


class ParallelAttention(nn.Module):
    """Both branches on the same rows; the mean of their normed outputs goes through one projection."""
    def __init__(self, c: ParallelConfig, il: int, spike: Spike | None, scales: bool):
        super().__init__()
        self.vanilla_attn, self.linear_attn = SoftmaxBranch(c, il, spike, scales), LinearBranch(c, il, spike, scales)
        self.norm1, self.norm2 = RMSNorm(c.hidden_size, c.norm_eps), RMSNorm(c.hidden_size, c.norm_eps)
        self.out_proj = Projection(c.hidden_size, c.hidden_size, False, spike, scales)

    def forward(self, h: Tensor, pos: Tensor, past: Any, bound: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Any]:
        """h [B, T, n_embd] after keys, values and S (None: at the beginning); rows of the same shape, and all three after them."""
        o1, kv = self.vanilla_attn(h, pos, past and past[:2])
        o2, S = self.linear_attn(h, past and past[2], bound)
        return self.out_proj((self.norm1(o1) + self.norm2(o2)) / 2), (*kv, S)


class MLP(nn.Module):
    def __init__(self, n_embd: int, n_ff: int, spike: Spike | None, scales: bool):
        super().__init__()
        down = spike if spike is not None and spike.scope == "paper" else None
        self.gate_proj = Projection(n_embd, n_ff, False, spike, scales)
        self.up_proj = Projection(n_embd, n_ff, False, spike, scales)
        self.down_proj = Projection(n_ff, n_embd, False, down, scales)

    def forward(self, m: Tensor) -> Tensor:
        """m [..., n_embd], of the same shape."""
        return self.down_proj(F.silu(self.gate_proj(m)) * self.up_proj(m))


class Experts(nn.Module):
    """The routed experts: of each row one, times its probability."""
    def __init__(self, c: MoeConfig, spike: Spike | None, scales: bool):
        super().__init__()
        self.gate = nn.Linear(c.hidden_size, c.num_local_experts, bias=False)  # the router reads floats
        self.experts = nn.ModuleList(MLP(c.hidden_size, c.intermediate_size, spike, scales) for _ in range(c.num_local_experts))
        self.norm = c.norm_topk_prob

    def route(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Rows u [..., n_embd]: the weight of the chosen expert, and which [...]; a tie goes to the lowest index."""
        p, expert = self.gate(u).softmax(-1).max(-1)
        return torch.ones_like(p) if self.norm else p, expert

    def forward(self, u: Tensor) -> Tensor:
        """u [..., n_embd], of the same shape."""
        weight, expert = self.route(u)
        y = torch.zeros_like(u)
        for e in expert.unique().tolist():
            rows = expert == e
            y[rows] = weight[rows, None] * self.experts[e](u[rows])
        return y


MIXERS = {"gla": GatedLinearAttention, "swa": SlidingWindowAttention, "parallel": ParallelAttention}


class Layer(nn.Module):
    def __init__(self, c: ModelConfig, il: int, spike: Spike | None, scales: bool):
        super().__init__()
        self.attn_norm = RMSNorm(c.hidden_size, c.norm_eps)
        self.attn = MIXERS[c.mixer(il)](c, il, spike, scales)
        self.mlp_norm = RMSNorm(c.hidden_size, c.norm_eps)
        if isinstance(c, MoeConfig) and c.is_moe(il):
            self.block_sparse_moe: Experts | None = Experts(c, spike, scales)
            self.shared_mlp = MLP(c.hidden_size, c.shared_intermediate_size, spike, scales)
        else:
            self.block_sparse_moe = None
            self.mlp = MLP(c.hidden_size, c.intermediate_size, spike, scales)

    def forward(self, x: Tensor, pos: Tensor, state: Any, bound: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Any]:
        """x [B, T, n_embd] after the layer's state; both after the layer."""
        y, state = self.attn(self.attn_norm(x), pos, state, bound)
        x = x + y
        u = self.mlp_norm(x)
        return x + (self.mlp(u) if self.block_sparse_moe is None else self.shared_mlp(u) + self.block_sparse_moe(u)), state


# --- model ----------------------------------------------------------------------------------------------------

@dataclass
class State:
    """n tokens seen; per layer None, S [B, K, D, D] (gla), keys and values [B, K, <= window, D] (swa), or keys, values (the sinks'
    first) and S (parallel)."""
    n: int
    layers: list[Any]


class Model(nn.Module):
    def __init__(self, config: ModelConfig, spike: Spike | None = None, scales: bool = False):
        super().__init__()
        self.config, self.spike = config, spike
        self.model = nn.Module()
        self.model.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Layer(config, il, spike, scales) for il in range(config.num_hidden_layers))
        self.model.norm = RMSNorm(config.hidden_size, config.norm_eps)
        if config.n_sinks:
            self.model.meta_tokens = nn.Parameter(torch.zeros(config.n_sinks, config.hidden_size))
        if isinstance(config, ParallelConfig) and config.use_lower_bound:
            self.model.lower_bounds = nn.Parameter(torch.zeros(config.bound_rows, config.hidden_size))
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens [B, T] -> logits [B, T, vocab] and the state after them; pass it back to go on. Without one: from start()."""
        state = state or self.start()
        pos = torch.arange(tokens.shape[1], device=tokens.device) + self.config.n_sinks + state.n
        x, after = self.through(self.model.embeddings(tokens), pos, state.layers)
        return self.logits(x), State(state.n + tokens.shape[1], after)

    def start(self) -> State:
        """The state before any text: where there are sinks, after them; the same for every text."""
        if not self.config.n_sinks:
            return State(0, [None] * self.config.num_hidden_layers)
        x = self.model.meta_tokens[None]
        return State(0, self.through(x, torch.arange(x.shape[1], device=x.device), [None] * self.config.num_hidden_layers)[1])

    def dense(self, tokens: Tensor) -> Tensor:
        """The same logits with the sinks as rows before the text, all in one pass."""
        m, x = self.config.n_sinks, self.model.embeddings(tokens)
        if m:
            x = torch.cat((self.model.meta_tokens.expand(len(x), -1, -1), x), 1)
        pos = torch.arange(x.shape[1], device=x.device)
        return self.logits(self.through(x, pos, [None] * self.config.num_hidden_layers)[0][:, m:])

    def through(self, x: Tensor, pos: Tensor, states: list[Any]) -> tuple[Tensor, list[Any]]:
        """Rows x [B, T, n_embd] through all layers."""
        after = []
        for il, (layer, s) in enumerate(zip(self.model.layers, states)):
            x, s = layer(x, pos, s, self.bound(il))
            after.append(s)
        return x, after

    def bound(self, il: int) -> tuple[Tensor, Tensor] | None:
        """A layer's lower bound lb of the decay and 1 - lb [n_embd], each summed by itself; None: it has none."""
        row = self.config.bound_row(il) if isinstance(self.config, ParallelConfig) else 0
        if not row:
            return None
        share = self.model.lower_bounds.double().softmax(0)
        return share[1:row + 1].sum(0), share[0] + share[row + 1:].sum(0)

    def logits(self, x: Tensor) -> Tensor:
        """Rows x [B, T, n_embd] behind the last layer."""
        x = self.model.norm(x)
        return F.linear(x, self.model.embeddings.weight) if self.lm_head is None else self.lm_head(x)

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
        config = ModelConfig.load(Path(folder))
        if isinstance(config, Config):
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
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8", newline="\n")
        write_tensors(folder, {n: t.detach().to(dtype).contiguous() for n, t in self.state_dict().items()}, max_shard_bytes)
