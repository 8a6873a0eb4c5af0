"""Token ids and chat prompts equal Hugging Face's, on the published 7B vocabulary."""

from __future__ import annotations

import json
import random
import unicodedata

import pytest
from binding_models import convert, shared, vocab_7b  # noqa: F401
from conftest import TINY, tiny_tensors, write_spm, write_weights

from spikingbrain_cpp import Llama

N_STRINGS = 2400

WORDS = ("the of and Hello world spiking neuron attention it's I'll we'd THEY'RE don't state decoder 1234 3.14159 x_1 "
         "naïve façade coöperate Zürich señor Москва Ελλάδα שלום مرحبا नमस्ते 한국어 日本語 カタカナ").split(" ")
CHINESE = "脉冲神经网络是一种受大脑启发的计算模型。你好，世界！线性注意力（滑动窗口）：第１２章、“引号”……繁體字測試"
EMOJI = ["🙂", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇨🇭", "❤️", "🧠⚡", "1️⃣"]
SPACES = [" ", "  ", "   \t", "\n", "\n\n\n", "\r\n", " \n \n", "\u00a0", "\u3000", "\u2028", "\t\t\t", " " * 40, "\n" * 20]
CODE = ["for (int i = 0; i < n; ++i) {\n\tsum += x[i]*y[i];\n}", "def f(x):\n    return x**2  # square\n", "<div class=\"a\">&nbsp;</div>",
        "SELECT * FROM t WHERE a>=1 AND b!='x';", "{\"k\": [1, 2.5e-3, null, true]}", "#include <vector>\n", "$ ls -la | grep '^d'\n", "\\frac{a}{b}"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<|object_ref_start|>", "<|fim_prefix|>", "<|im_end", "im_end|>"]
NOT_NFC = ["e\u0301", "a\u0308o\u0308", "n\u0303", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\u212b", "\u2126", "q\u0323\u0307", "q\u0307\u0323",
           "\uf900", ">\u0338", "=\u0338", "\u0344", "\u0958", "\u1e9b\u0323", "\u0301"]
BROKEN = [b"\xff", b"\xc3", b"\xe4\xbd", b"\xf0\x9f\x99", b"\x80\x80", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"]


def corpus() -> list[str]:
    """The same strings in every run: each kind alone, then mixtures."""
    rng = random.Random(20251122)
    kinds = [lambda: " ".join(rng.choices(WORDS, k=rng.randrange(1, 9))),
             lambda: (lambda i: CHINESE[i:i + rng.randrange(1, 12)])(rng.randrange(len(CHINESE))),
             lambda: rng.choice(CODE), lambda: rng.choice(EMOJI), lambda: rng.choice(SPACES), lambda: rng.choice(SPECIALS),
             lambda: rng.choice(NOT_NFC), lambda: rng.choice(BROKEN).decode("utf-8", "replace"),
             lambda: "".join(chr(rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x250, 0xd800), rng.randrange(0x1f300, 0x1fb00)]))
                             for _ in range(rng.randrange(1, 12))),
             lambda: str(rng.randrange(10**rng.randrange(1, 15)))]
    texts = [*WORDS, CHINESE, *EMOJI, *SPACES, *CODE, *SPECIALS, *NOT_NFC, *(b.decode("utf-8", "replace") for b in BROKEN), "a\0b", "x" * 300]
    while len(texts) < N_STRINGS:
        texts.append("".join(rng.choice(kinds)() + rng.choice(["", "", " "]) for _ in range(rng.randrange(1, 7))))
    return texts


@pytest.fixture(scope="module")
def llm(vocab_7b):  # noqa: F811
    with Llama(vocab_7b, vocab_only=True) as model:
        yield model


@pytest.fixture(scope="module")
def hugging_face():
    """The tokenizer that transformers builds from the published files (Qwen2's), built with `tokenizers` alone."""
    tk = pytest.importorskip("tokenizers")
    folder = shared("SpikingBrain-7B-W8ASpike")
    hf = tk.Tokenizer(tk.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"), byte_fallback=False))
    hf.normalizer = tk.normalizers.NFC()
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    hf.pre_tokenizer = tk.pre_tokenizers.Sequence([tk.pre_tokenizers.Split(tk.Regex(pattern), "isolated"),
                                                   tk.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    hf.decoder = tk.decoders.ByteLevel()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for number, token in sorted(config["added_tokens_decoder"].items(), key=lambda item: int(item[0])):
        added = tk.AddedToken(token["content"], normalized=token["normalized"], special=token["special"],
                              lstrip=token["lstrip"], rstrip=token["rstrip"], single_word=token["single_word"])
        (hf.add_special_tokens if token["special"] else hf.add_tokens)([added])
        assert hf.token_to_id(token["content"]) == int(number)
    return hf


def test_ids_equal_hugging_faces(llm, hugging_face):
    texts = corpus()
    assert len(texts) >= 2000 and sum(not unicodedata.is_normalized("NFC", t) for t in texts) > 200
    wrong = [(t, llm.tokenize(t.encode(), special=True), hugging_face.encode(t, add_special_tokens=False).ids) for t in texts]
    wrong = [case for case in wrong if case[1] != case[2]]
    assert not wrong, f"{len(wrong)} of {len(texts)}, first: {wrong[0]}"


def test_back_to_the_normalised_text(llm, hugging_face):
    for text in corpus():
        ids = llm.tokenize(text, special=True)
        assert llm.detokenize(ids, special=True).decode() == hugging_face.decode(ids, skip_special_tokens=False)
        if not any(s in text for s in SPECIALS):
            assert llm.detokenize(ids).decode() == unicodedata.normalize("NFC", text)
        pieces = b"".join(llm.detokenize([i], prev_tokens=ids[:n][-3:], special=True) for n, i in enumerate(ids))
        assert pieces == llm.detokenize(ids, special=True)


def test_special_tokens_are_text_unless_asked_for(llm):
    assert llm.tokenize("<|im_end|>", special=True) == [151645]
    ids = llm.tokenize("<|im_end|>")
    assert 151645 not in ids and llm.detokenize(ids) == b"<|im_end|>"
    assert llm.detokenize([151645]) == b"" and llm.detokenize([151645], special=True) == b"<|im_end|>"


def test_a_mark_does_not_eat_a_special_token(llm):
    """NFC of '>' and U+0338 is one character; Hugging Face takes the token out before it normalises."""
    assert llm.tokenize("<|im_end|>\u0338", special=True)[0] == 151645


def test_broken_utf8_and_surrogates_count_as_the_replacement(llm):
    for raw in BROKEN:
        assert llm.tokenize(b"a" + raw + b"b") == llm.tokenize("a" + raw.decode("utf-8", "replace") + "b")
    assert llm.tokenize("a\ud800b") == llm.tokenize("a\ufffdb")
    assert llm.tokenize("\ud83d\ude42") == llm.tokenize("🙂")  # a pair of them is a character


def test_bos_follows_the_models_key(llm):
    assert llm.tokenize(b"a", add_bos=True) == llm.tokenize(b"a", add_bos=False)
    assert (llm.token_bos(), llm.token_eos(), llm.token_nl()) == (151643, 151643, 198)
    assert llm.n_vocab() == 152064 and llm.n_embd() == 3584


def test_long_text(llm):
    text = "国家 spike " * 40_000
    assert llm.detokenize(llm.tokenize(text)).decode() == text


CHATS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "你好 <b>&'\"</b>"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b\n"}, {"role": "user", "content": "🙂"}],
    [{"role": "system", "content": ""}, {"role": "user", "content": ""}, {"role": "assistant", "content": "x"}],
    [{"role": "user", "content": "weather?"},
     {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "w", "arguments": {"city": "Zürich", "n": [1, 2.5, True, None]}}}]},
     {"role": "tool", "content": "{\"t\": 3}"}, {"role": "tool", "content": "ok"}, {"role": "assistant", "content": "3°"}],
]
TOOLS = [{"type": "function", "function": {"name": "w", "description": "météo <x>", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]


def transformers_render(template: str, messages, **variables) -> str:
    """transformers' render_jinja_template, without transformers: its sandbox, its tojson, its two functions."""
    jinja2 = pytest.importorskip("jinja2")
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)
    env.globals["raise_exception"] = raise_exception
    return env.from_string(template).render(messages=messages, **variables)


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("chat", CHATS, ids=range(len(CHATS)))
def test_chat_template_equals_hugging_faces(llm, chat, prompt, tools):
    template = json.loads((shared("SpikingBrain-7B-W8ASpike") / "tokenizer_config.json").read_text())["chat_template"]
    want = transformers_render(template, chat, tools=tools, add_generation_prompt=prompt, bos_token="", eos_token="<|endoftext|>")
    assert llm.apply_chat_template(chat, add_generation_prompt=prompt, tools=tools) == want


def test_templates_that_fail(llm):
    for template in ("{% if", "{{ raise_exception('no such role') }}"):
        with pytest.raises(ValueError, match="chat template"):
            llm.apply_chat_template(CHATS[0], template=template)
    with pytest.raises(ValueError, match="no JSON"):
        llm.apply_chat_template([{"role": "user", "content": object()}])
    assert llm.apply_chat_template(CHATS[0], template="{{ bos_token }}{{ x }}", x=3) == "<|endoftext|>3"


def test_sentencepiece_words_equal_sentencepieces(tmp_path):
    spm = pytest.importorskip("sentencepiece")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    config = {**TINY, "vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2}
    (checkpoint / "config.json").write_text(json.dumps(config))
    write_weights(checkpoint, tiny_tensors(config, 16, 0), "safetensors", "BF16", 1)
    write_spm(checkpoint, "bpe", 310)
    sp = spm.SentencePieceProcessor(str(checkpoint / "tokenizer.model"))
    rng = random.Random(3)
    words = "the cat number sat on mat and said hello to all of them 12 7 xyz".split()
    with Llama(convert(checkpoint, tmp_path / "spm.gguf"), vocab_only=True) as llm:
        for _ in range(200):
            text = " ".join(rng.choices(words, k=rng.randrange(1, 9)))
            ids = llm.tokenize(text, add_bos=False)
            assert ids == sp.encode(text) and llm.detokenize(ids).decode() == " " + text  # without a BOS before it, as llama-cpp-python
            assert llm.detokenize(ids[1:], prev_tokens=ids[:1]) == (" " + text).encode()[len(llm.detokenize(ids[:1])):]
