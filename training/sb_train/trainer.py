"""Model, optimiser and step; a run that ends the same whether or not it was interrupted."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sb_convert.config import ModelConfig
from sb_convert.errors import bad
from sb_convert.reference import Model, Spike

from .data import batch_at
from .match import fit_norms, match_loss
from .measure import VALIDATION, perplexity
from .model import new_model, set_spiking, sharing, with_gradients
from .pieces import row_loss
from .recipe import Recipe, learning_rate, same_recipe


class Trainer:
    """Of a model (None: one with random weights), with a teacher or none; saved and loaded as one file.

    inputs: what else decides the weights (fingerprints of files); a saved run goes on with the same alone. inner: threads in each operator.
    """

    def __init__(self, config: ModelConfig, recipe: Recipe, model: Model | None = None, teacher: Model | None = None, device: str = "cpu",
                 inputs: dict[str, str] | None = None, inner: int = 1):
        self.inner = inner
        self.r, self.step, self.seconds, self.device, self.inputs = recipe, 0, 0.0, torch.device(device), inputs or {}
        torch.manual_seed(recipe.seed)
        self.model = (new_model(config, recipe.seed) if model is None else model).to(self.device).train()
        self.teacher = None if teacher is None else teacher.to(self.device).eval().requires_grad_(False)
        matrices = [p for p in self.model.parameters() if p.dim() == 2]
        others = [p for p in self.model.parameters() if p.dim() != 2]
        threads = recipe.threads if self.device.type == "cpu" else 1
        self.replicas = [self.model, *(sharing(self.model) for _ in range(threads - 1))]
        self.pool = ThreadPoolExecutor(threads)
        self.optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}],
                                           lr=recipe.lr, betas=(0.9, 0.95), eps=1e-8)

    @property
    def spikes(self) -> bool:
        """Whether every second micro-batch of this step is read as a spiking model."""
        return self.r.spikes(self.step)

    @property
    def tokens(self) -> int:
        """Tokens read so far."""
        return self.step * self.r.batch * self.r.length

    def train_step(self, tokens: np.ndarray) -> float:
        """One step; its mean loss."""
        x = batch_at(tokens, self.step, self.r).to(self.device)
        if self.spikes:
            with_gradients()
        if self.step == 0 and self.r.n_match and self.teacher is not None:
            fit_norms(self.model, self.teacher, x[:, :-1])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.r)
        micro = list(enumerate(x.split(self.r.micro_rows(x.shape[1] - 1))))
        n = len(self.replicas)
        shares = [self.pool.submit(self.backward, model, micro[i::n], len(x)) for i, model in enumerate(self.replicas)]
        total = sum(share.result() for share in shares)
        for others in zip(*(model.parameters() for model in self.replicas)):
            for p in others[1:]:
                if p.grad is not None:  # fewer micro-batches than threads
                    others[0].grad = p.grad if others[0].grad is None else others[0].grad.add_(p.grad)
                p.grad = None
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.r.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return total

    def backward(self, model: Model, micro: list[tuple[int, Tensor]], n_rows: int) -> float:
        """Adds the gradients of these micro-batches to the model's; returns their share of the mean loss."""
        if self.device.type == "cpu":
            torch.set_num_threads(self.inner)  # of this thread's own operators
        total = 0.0
        for i, rows in micro:
            set_spiking(model, Spike(self.r.spike_k) if self.spikes and i % 2 else None)
            loss = self.loss(model, rows) * (len(rows) / n_rows)
            loss.backward()
            total += loss.item()
        set_spiking(model, None)
        return total

    def loss(self, model: Model, rows: Tensor) -> Tensor:
        """Mean loss [] of rows [B, T + 1]: what this step is for."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.r.bf16):
            if self.step < self.r.n_match and self.teacher is not None:
                return match_loss(model, self.teacher, rows[:, :-1])
            return row_loss(model, rows, self.r.piece, self.teacher, self.r.distill)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        part = path.with_suffix(".part")
        saved = {"recipe": dataclasses.asdict(self.r), "inputs": self.inputs, "step": self.step, "seconds": self.seconds, "rng": torch.get_rng_state(),
                 "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        try:
            torch.save(saved, part)
        except RuntimeError as e:  # how torch tells a full disk
            part.unlink(missing_ok=True)
            raise bad(path, "file", str(e).splitlines()[0], f"room for {sum(p.numel() for p in self.model.parameters()) * 12 / 1e6:.0f} MB", "free space; the same command goes on") from None
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Goes on from a saved run. ConvertError: one of another recipe or other inputs, or a damaged file."""
        try:
            saved = torch.load(path, weights_only=True, map_location=self.device)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as e:
            raise bad(path, "content", f"a damaged file ({str(e).splitlines()[0]})", "a run that sb-train saved", "remove it to begin again") from None
        same_recipe(saved["recipe"], saved.get("inputs", {}), self.r, self.inputs, path)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"].cpu())
        self.step, self.seconds = saved["step"], saved["seconds"]


def train(t: Trainer, tokens: np.ndarray, held_out: np.ndarray, folder: Path, until: float = math.inf, stop_at: int | None = None,
          eval_every: int = 200, bar: bool = True) -> bool:
    """Goes on to the last step, or to `stop_at`, or for `until` seconds of training in all; True if done. Writes folder/state.pt
    and folder/train.jsonl. Rows of steps that a lost run made after its last save are dropped."""
    from tqdm import tqdm
    state, log = folder / "state.pt", folder / "train.jsonl"
    if state.is_file():
        t.load(state)
    rows = [r for r in map(json.loads, log.read_text().splitlines()) if r["step"] <= t.step] if log.is_file() and t.step else []
    log.write_text("".join(json.dumps(r) + "\n" for r in rows))
    losses: list[float] = []
    end = min(t.r.steps, stop_at or t.r.steps)
    with tqdm(total=t.r.steps, initial=t.step, unit="step", disable=None if bar else True) as progress:
        while t.step < end and t.seconds < until:
            begun = time.perf_counter()
            losses.append(t.train_step(tokens))
            if not math.isfinite(losses[-1]):
                raise bad(folder, f"loss of step {t.step}", losses[-1], "a finite number", "begin again with a smaller learning rate, in another folder")
            progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            progress.update()
            measured = t.step % eval_every == 0 or t.step == end
            if measured:
                row, losses = _row(t, losses, held_out), []
            t.seconds += time.perf_counter() - begun
            if measured:
                with log.open("a") as f:
                    f.write(json.dumps({**row, "seconds": round(t.seconds, 1)}) + "\n")
                tqdm.write(f"step {row['step']}/{t.r.steps}  train {row['train_loss']:.3f}  val ppl {row['val_ppl']:.2f}  {t.seconds / 60:.1f} min")
                t.save(state)
    t.save(state)
    return t.step == t.r.steps


def _row(t: Trainer, losses: list[float], held_out: np.ndarray) -> dict[str, Any]:
    """A line of train.jsonl: where the run is, the mean loss since the last line, and the held-out perplexity."""
    length = t.r.stages[-1][0] if t.r.stages else t.r.length  # one for the whole run, so that its figures compare
    return {"step": t.step, "tokens": t.tokens, "train_loss": round(float(np.mean(losses)), 4),
            "val_ppl": round(perplexity(t.model, held_out[:max(VALIDATION, length) + 1], length, piece=t.r.piece), 3), "lr": learning_rate(t.step - 1, t.r), "spikes": t.r.spikes(t.step - 1)}
