"""sb-train: long rows in pieces are exact and bounded, runs go on bit by bit, a teacher teaches, and what is wrong is said in a sentence."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional
ROOT = Path(__file__).resolve().parent.parent

from sb_convert import reference  # noqa: E402
from sb_convert.config import Config  # noqa: E402
from sb_convert.errors import ConvertError  # noqa: E402
from sb_convert.reference import Model  # noqa: E402
from sb_init.base import theirs  # noqa: E402
from sb_train import cli, data, match, pieces, recipe, teacher  # noqa: E402
from sb_train.measure import perplexity  # noqa: E402
from sb_train.model import new_model  # noqa: E402
from sb_train.recipe import Recipe  # noqa: E402
from sb_train.trainer import Trainer  # noqa: E402

SHAPE = Config(hidden_size=32, num_hidden_layers=3, intermediate_size=32, vocab_size=512, num_attention_heads=4, num_key_value_heads=2,
               attn_layers=(1, 2), sliding_window=24, rope_theta=1e4, norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=509, eos_token_id=509)
BASE = dataclasses.replace(SHAPE, attn_layers=(0, 1, 2), sliding_window=teacher.ENDLESS)
TEXT = "".join(f"line {i * 7 % 97}: the value of item_{i} is {i ** 2}\n" for i in range(400))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def plain_rounding(monkeypatch):
    """Training replaces these for good; other tests want the definition."""
    for name in ("spiked", "rounded_int8"):
        monkeypatch.setattr(reference, name, getattr(reference, name))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """A cycle with noise: something that a model can learn."""
    rng = np.random.default_rng(0)
    return np.where(rng.random(3000) < 0.1, rng.integers(60, size=3000), np.arange(3000) * 7 % 60).astype(np.uint32)


def student(seed: int = 1, config: Config = SHAPE) -> Model:
    return new_model(dataclasses.replace(config), seed)


# --- long rows ------------------------------------------------------------------------------------------------

def gradients(model: Model, loss) -> dict:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize(("piece", "at_a_time"), [(16, 1 << 24), (17, 1 << 24), (40, 9 * 512), (128, 9 * 512)])
@pytest.mark.parametrize("taught", [False, True])
def test_pieces_have_the_gradients_of_the_whole(monkeypatch, piece, at_a_time, taught):
    """Against the reference on the whole row, and the textbook's losses, in float64."""
    monkeypatch.setattr(pieces, "LOGITS", at_a_time)
    model, guide = student().double(), new_model(BASE, 2).double()
    rows = torch.randint(512, (2, 101), generator=torch.Generator().manual_seed(1))
    logits, y = model(rows[:, :-1])[0], rows[:, 1:]
    want = F.cross_entropy(logits.transpose(1, 2), y)
    if taught:
        p = guide(rows[:, :-1])[0].log_softmax(-1)
        want = 0.3 * want + 0.7 * (p.exp() * (p - logits.log_softmax(-1))).sum(-1).mean()
    whole = gradients(model, want)
    got = pieces.row_loss(model, rows, piece, guide if taught else None, 0.7)
    parts = gradients(model, got)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)  # logits are rounded to float32 before the loss
    for name, g in whole.items():
        assert (parts[name] - g).norm() <= 2e-6 * g.norm(), name


def test_nothing_grows_with_the_square_of_the_length():
    """The largest tensor of forward and backward is the same for rows of 64 and of 128 tokens."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(x, torch.Tensor):
                    self.n = max(self.n, x.numel())
            return out
    largest = {}
    for guide in (None, new_model(BASE, 2)):
        for n in (64, 128):
            model, seen = student(), Largest()
            seen.n = 0
            with seen:
                pieces.row_loss(model, torch.zeros(1, n + 1, dtype=torch.int64), 16, guide, 0.5).backward()
            largest[guide is None, n] = seen.n
    assert largest[True, 128] == largest[True, 64]
    assert largest[False, 128] <= 2 * largest[False, 64]  # a teacher that sees all text has scores [piece, n]


# --- schedule -------------------------------------------------------------------------------------------------

def test_stages_share_the_steps_and_every_step_reads_as_many_tokens(tokens):
    r = Recipe(steps=10, batch=8, length=16, stages=recipe.parse_stages("16:50%,32:30%,64:20%"))
    assert [r.stage(i)[1] for i in range(10)] == [16] * 5 + [32] * 3 + [64] * 2
    assert [tuple(data.batch_at(tokens, i, r).shape) for i in (0, 5, 9)] == [(8, 17), (4, 33), (2, 65)]
    assert [r.micro_rows(n) for n in (16, 32, 64)] == [2, 1, 1]


@pytest.mark.parametrize(("text", "words"), [("16", "LENGTH:SHARE%"), ("16:50", "LENGTH:SHARE%"), ("x:100%", "LENGTH:SHARE%"), ("16:50%,32:40%", "90% in all"), ("16:50%,48:50%", "48, expected a divisor"),
                                             ("16:150%,32:-50%", "shares above 0")])
def test_stages_that_are_none_are_refused(text, words):
    with pytest.raises(ConvertError, match=words):
        Recipe(steps=10, batch=8, length=16, stages=recipe.parse_stages(text))


def test_matching_and_training_each_have_their_learning_rate():
    r = Recipe(steps=100, warmup=10, lr=1e-3, match=0.4, match_lr=2e-3)
    rates = [recipe.learning_rate(i, r) for i in range(100)]
    assert max(rates[:40]) == rates[9] == 2e-3 and max(rates[40:]) == rates[49] == 1e-3 and rates[39] < 1e-4 and rates[99] < 2e-5


# --- teachers -------------------------------------------------------------------------------------------------

def test_distillation_brings_the_teachers_distribution(tokens):
    def divergence(model: Model) -> float:
        x = torch.from_numpy(tokens[:129].astype(np.int64))[None]
        return (pieces.row_loss(model, x, 128, guide, 1.0)).item()
    guide = new_model(BASE, 2)
    with torch.no_grad():
        guide.model.embeddings.weight *= 5  # a teacher that is sure of something
    t = Trainer(SHAPE, Recipe(steps=25, batch=2, length=64, warmup=2, lr=5e-3, distill=1.0, threads=1), teacher=guide)
    before = divergence(t.model)
    for _ in range(25):
        t.train_step(tokens)
    assert divergence(t.model) < 0.5 * before


def test_matching_brings_the_teachers_attention_and_leaves_the_rest(tokens):
    guide, x = new_model(BASE, 2), torch.from_numpy(tokens[:128].astype(np.int64)).view(2, 64)
    model = student()
    model.load_state_dict(guide.state_dict(), strict=False)
    t = Trainer(SHAPE, Recipe(steps=20, batch=2, length=64, warmup=2, match=1.0, threads=1), model, guide)
    before, mlp = match.match_loss(t.model, guide, x).item(), t.model.model.layers[1].mlp.up_proj.weight.clone()
    for _ in range(20):
        t.train_step(tokens)
    assert match.match_loss(t.model, guide, x).item() < 0.5 * before and torch.equal(mlp, t.model.model.layers[1].mlp.up_proj.weight)


def save_transformer(model: Model, folder: Path, model_type: str = "qwen2") -> None:
    """A model whose every layer has an endless window, under the names of a Transformer."""
    from safetensors.torch import save_file
    c = model.config
    folder.mkdir(exist_ok=True)
    for path in (ROOT / "examples" / "tiny").iterdir():
        if path.suffix in (".json", ".txt") and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    fields = {k: getattr(c, k) for k in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads",
                                         "rope_theta", "tie_word_embeddings", "bos_token_id", "eos_token_id")}
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": c.norm_eps, "hidden_act": "silu",
                                                    "max_position_embeddings": 4096, "torch_dtype": "float32", **fields}))
    save_file({theirs(name): p.contiguous() for name, p in model.state_dict().items()}, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_transformer_as_teacher_is_the_one_that_transformers_computes(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = new_model(BASE, 3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_()
    save_transformer(model, tmp_path)
    x = torch.randint(512, (1, 60))
    with torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).float()(x).logits
        mine = teacher.load_teacher(tmp_path, SHAPE, ROOT / "examples" / "tiny")(x)[0]
    assert torch.allclose(theirs, mine, atol=1e-4)


# --- command --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """model/ and base/, text.txt."""
    root = tmp_path_factory.mktemp("sb_train")
    student().save_pretrained(root / "model", torch.float32)
    for path in (ROOT / "examples" / "tiny").iterdir():
        if path.suffix in (".json", ".txt") and path.name != "config.json":
            shutil.copyfile(path, root / "model" / path.name)
    save_transformer(new_model(BASE, 2), root / "base")
    (root / "text.txt").write_text(TEXT)
    return root


def command(root: Path, out: str, *options: object) -> int:
    return cli.main([str(root / "model"), "-o", str(root / out), "--text", str(root / "text.txt"), "--steps", "8", "--batch", "2", "--length", "32", "--warmup", "2",
                     "--eval-every", "3", "--threads", "1", "--dtype", "float32", "--device", "cpu", *map(str, options)])


EVERYTHING = ("--stages", "32:75%,64:25%", "--piece", "32", "--spike-from", "0.5", "--match", "0.25", "--distill", "0.5")


def test_an_interrupted_command_ends_the_same(folders, capsys):
    """With stages, matching, distillation and spikes: stopped in each of them."""
    options = (*EVERYTHING, "--teacher", folders / "base")
    assert command(folders, "whole", *options) == 0
    assert command(folders, "parts", *options, "--minutes", 1e-9) == 3 and not (folders / "parts").exists()
    for _ in range(6):
        spent = torch.load(folders / "parts.work" / "state.pt", weights_only=True)["seconds"]
        assert command(folders, "parts", *options, "--minutes", (spent + 1e-9) / 60) == 3
    assert command(folders, "parts", *options) == 0
    assert (folders / "whole" / "model.safetensors").read_bytes() == (folders / "parts" / "model.safetensors").read_bytes()
    assert (folders / "whole" / "merges.txt").is_file() and len((folders / "whole" / "train.jsonl").read_text().splitlines()) == 3
    written = Model.from_pretrained(folders / "whole")
    assert math.isfinite(perplexity(written, np.arange(200), 32))
    assert "8: the time is over" in capsys.readouterr().out


def test_text_that_is_tokens_already_needs_no_tokenizer(folders, monkeypatch):
    """A work folder moved to a machine without the compiled part."""
    options = ("--steps", "4")
    assert command(folders, "moved", *options, "--minutes", 1e-9) == 3
    monkeypatch.setattr("sb_train.data.Encoder", None)
    assert command(folders, "moved", *options) == 0
    with pytest.raises(TypeError):
        command(folders, "other", *options)


def test_other_options_do_not_go_on(folders, capsys):
    assert command(folders, "other", "--minutes", 1e-9) == 3
    held = (folders / "other.work" / "state.pt").read_bytes()
    for options, words in ((("--lr", 0.5), r"lr = 0\.5, expected 0\.001"), (("--seed", 2), "seed = 2, expected 1"), (("--random",), "checkpoint = ")):
        assert command(folders, "other", *options) == 1
        assert_sentence(capsys.readouterr().err, words)
    (folders / "more.txt").write_text(TEXT * 2)
    assert command(folders, "other", "--text", folders / "more.txt") == 1
    assert_sentence(capsys.readouterr().err, "other files than those")
    assert (folders / "other.work" / "state.pt").read_bytes() == held and not (folders / "other").exists()


def assert_sentence(err: str, words: str) -> None:
    import re
    assert err.startswith("sb-train: ") and err.count("\n") == 1 and "got " in err and "expected " in err and re.search(words, err), err


def changed(folder: Path, to: Path, **fields: object) -> Path:
    """A copy of a checkpoint with other fields in its config.json."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **fields}))
    return to


def damaged(f: Path) -> Path:
    """The work folder of a run whose last save is not whole."""
    assert command(f, "damaged", "--minutes", 1e-9) == 3
    (f / "damaged.work" / "state.pt").write_bytes(b"PK")
    return f / "damaged.work"


@pytest.mark.parametrize(("options", "words"), [
    (lambda f: ("--text", f / "none.txt"), "none.txt: text: got no such file"),
    (lambda f: ("--text", f / "model" / "model.safetensors"), "model.safetensors: text: got .*UTF-8"),
    (lambda f: ("--text", f / "empty.txt"), "--text: tokens: got"),
    (lambda f: ("--text", f / "bad.jsonl"), "bad.jsonl: line 2: got"),
    (lambda f: ("--distill", 0.5), "--distill: teacher: got none"),
    (lambda f: ("--teacher", f / "base"), "neither --distill nor --match"),
    (lambda f: ("--distill", 1.5, "--teacher", f / "base"), "--distill: value: got 1.5"),
    (lambda f: ("--distill", 1, "--teacher", f / "none"), "config.json: file: got nothing"),
    (lambda f: ("--distill", 1, "--teacher", changed(f / "base", f / "mamba", model_type="mamba")), "model_type: got 'mamba', expected 'qwen2'"),
    (lambda f: ("--distill", 1, "--teacher", f / "wide"), "vocab_size: got 1024, expected 512"),
    (lambda f: ("--match", 1, "--teacher", f / "shallow"), "num_hidden_layers: got 2, expected 3"),
    (lambda f: ("--distill", 1, "--teacher", f / "words"), r"token 511: got '<\|stop\|>'"),
    (lambda f: ("--stages", "16:100%"), "--stages: first length: got 16"),
    (lambda f: ("--length", 4096), "--text: tokens: got"),
    (lambda f: ("--lr", "nan"), "--lr: value: got nan"),
    (lambda f: ("--minutes", "nan"), "--minutes: value: got nan"),
    (lambda f: ("--eval-every", 0), "--eval-every: value: got 0"),
    (lambda f: ("--device", "cuda:77"), "--device: cuda:77: got "),
    (lambda f: ("--device", "meta"), "--device: meta: got "),
    (lambda f: ("--work", damaged(f)), "state.pt: content: got a damaged file"),
    (lambda f: ("-o", f / "model"), "output: got an existing folder"),
])
def test_what_is_wrong_is_said_in_a_sentence(folders, capsys, options, words):
    save_transformer(new_model(dataclasses.replace(BASE, num_hidden_layers=2, attn_layers=(0, 1)), 2), folders / "shallow")
    save_transformer(new_model(dataclasses.replace(BASE, vocab_size=1024), 2), folders / "wide")
    save_transformer(new_model(BASE, 2), folders / "words")
    for name in ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"):
        path = folders / "words" / name
        path.write_text(path.read_text().replace("<|im_end|>", "<|stop|>"))
    (folders / "empty.txt").write_text("")
    (folders / "bad.jsonl").write_text('{"text": "a"}\n{"txt": "a"}\n')
    assert command(folders, "wrong", *options(folders)) == 1
    assert_sentence(capsys.readouterr().err, words)
    assert not (folders / "wrong").exists() and not list(folders.glob(".*.partial"))


def test_other_layouts_are_refused(folders, capsys, tmp_path):
    shutil.copytree(folders / "base", tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXT)
    assert command(tmp_path, "out") == 1
    assert_sentence(capsys.readouterr().err, "model_type: got 'qwen2'")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "text.txt"]


def test_weights_with_scales_are_refused(folders, capsys, tmp_path):
    """They would not fit the trained weights."""
    config = dataclasses.replace(SHAPE, hidden_size=128, intermediate_size=128, gate_low_rank_dim=0, head_dim=32)
    shutil.copytree(folders / "model", tmp_path / "model")
    Model(config, scales=True).init_weights(1).save_pretrained(tmp_path / "model", torch.float32)
    (tmp_path / "text.txt").write_text(TEXT)
    assert command(tmp_path, "out") == 1
    assert_sentence(capsys.readouterr().err, "a W8ASpike checkpoint")


def test_a_loss_that_is_no_number_ends_the_run(folders, capsys, tmp_path):
    shutil.copytree(folders / "model", tmp_path / "model")
    model = student()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    model.save_pretrained(tmp_path / "model", torch.float32)
    (tmp_path / "text.txt").write_text(TEXT)
    assert command(tmp_path, "out") == 1
    assert_sentence(capsys.readouterr().err, "loss of step 1: got nan")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work" / "state.pt").exists()
