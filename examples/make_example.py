"""Makes examples/tiny: a SpikingBrain checkpoint with random weights, in the published format. Needs torch.

    python examples/make_example.py [FOLDER]
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

N_BYTES, SPECIAL = 256, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 512
TEXT = """
A neuron that has nothing to say is silent, and silence costs nothing. That is the whole idea: the brain does its work on
twenty watts because most of its cells are quiet most of the time. A spiking model counts how often a cell would have fired
and sends the count, a small whole number, instead of a fraction with many digits. Adding whole numbers is cheap.

The model reads one token after the other. In the layers with a gate it keeps a table of what it has read, and lets old
entries fade at a rate that it chooses itself; in the other layers it looks back over a window of the last tokens and no
further. Neither grows with the length of the text, so a conversation may go on for as long as the reader likes: the memory
that it takes after ten tokens is the memory that it takes after ten thousand. This is not true of the models in common use,
which keep every word that they were ever given and must read all of them again before they write the next one.

There was once a lighthouse keeper who wrote down every ship. After some years the books filled the tower, and he could no
longer find the stairs. His daughter, who kept the light after him, wrote down only what she would want to know tomorrow:
the weather, the tide, the ships that had not come home. Her book was never longer than one page, and she was never wrong
about the ships. When people asked her how she could remember so much, she said that she had forgotten the rest.

for i in range(10):
    print(i, "spikes", 0.1 * i)

int main(void) { return 0; }  // the shortest program that does what it says
1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 1000. What? Yes! (No.) "Perhaps" - they'll see; it's what we've got, isn't it?
"""
WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+| [^\W\d_]+")  # near Qwen2's
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}")


def byte_names() -> list[str]:
    """GPT-2's printable character for each byte: itself where printable, else the next free one from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b if b in printable else next(others)) for b in range(N_BYTES)]


def train_bpe(text: str, n_merges: int) -> list[tuple[str, str]]:
    """The n most frequent pairs, one after the other, each merged before the next is counted."""
    names = byte_names()
    words = Counter(tuple(names[b] for b in w.encode()) for w in re.findall(r" ?[^\W\d_]+|" + WORD.pattern, text))
    merges = []
    for _ in range(n_merges):
        pairs: Counter = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        words = Counter({merged(word, best): n for word, n in words.items()})
    return merges


def merged(word: tuple, pair: tuple) -> tuple:
    out, i = [], 0
    while i < len(word):
        hit = word[i:i + 2] == pair
        out.append(word[i] + word[i + 1] if hit else word[i])
        i += 2 if hit else 1
    return tuple(out)


def write_tokenizer(folder: Path, merges: list[tuple[str, str]] | None = None) -> None:
    """vocab.json, merges.txt, added_tokens.json, special_tokens_map.json, tokenizer_config.json, as Qwen2 has them."""
    merges = merges or train_bpe(TEXT, VOCAB_SIZE - N_BYTES - len(SPECIAL))
    tokens = sorted(byte_names()) + [a + b for a, b in merges]
    added = {token: len(tokens) + i for i, token in enumerate(SPECIAL)}
    write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    write_json(folder / "added_tokens.json", added)
    write_json(folder / "special_tokens_map.json", {"eos_token": SPECIAL[0], "pad_token": SPECIAL[0], "additional_special_tokens": list(SPECIAL[1:])})
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": {str(i): {"content": t, **flags} for t, i in added.items()},
        "additional_special_tokens": list(SPECIAL[1:]), "bos_token": None, "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[0], "errors": "replace", "model_max_length": 4096, "pad_token": SPECIAL[0], "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    from sb_convert.config import Config
    from sb_convert.reference import Model
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "tiny")
    end = VOCAB_SIZE - len(SPECIAL)
    config = Config(hidden_size=256, num_hidden_layers=4, intermediate_size=256, vocab_size=VOCAB_SIZE, num_attention_heads=4,
                    num_key_value_heads=2, attn_layers=(1, 3), sliding_window=64, rope_theta=1e6, norm_eps=1e-6,
                    max_position_embeddings=4096, bos_token_id=end, eos_token_id=end, initializer_range=0.06)
    Model(config).init_weights(seed=1).save_pretrained(folder)
    write_tokenizer(folder)
    print(f"{folder}: {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
