"""The training text: documentation from Debian packages, as documents with a fixed order and a held-out part by hash.

    python examples/corpus.py FOLDER        downloads, unpacks (nothing is installed), and prints bytes per source
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from make_example import SPECIAL, write_tokenizer

HELD_OUT = 33   # one document of so many is held out
MIN_CHARS, MAX_CHARS = 400, 400_000  # shorter is no text, longer is a list
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Source:
    """Files of one Debian 12 package: glob within its folder, and the licence its copyright file gives."""
    package: str
    glob: str
    licence: str


SOURCES = (
    Source("python3.11-doc", "usr/share/doc/python3.11/html/_sources/**/*.rst.txt", "PSF-2.0, examples also 0BSD"),
    Source("libpython3.11-minimal", "usr/lib/python3.11/**/*.py", "PSF-2.0"),
    Source("libpython3.11-stdlib", "usr/lib/python3.11/**/*.py", "PSF-2.0"),
    Source("python-sqlalchemy-doc", "usr/share/doc/python-sqlalchemy-doc/**/*.rst", "MIT"),
    Source("python-django-doc", "usr/share/doc/python-django-doc/html/**/*.html", "BSD-3-Clause"),
    Source("sqlite3-doc", "usr/share/doc/sqlite3/**/*.html", "public domain"),
    Source("git-doc", "usr/share/doc/git-doc/**/*.txt", "GPL-2"),
    Source("perl-doc", "usr/share/perl/**/*.pod", "Artistic or GPL-1+"),
    Source("debian-policy", "usr/share/doc/debian-policy/policy.html/_sources/*.rst.txt", "GPL-2+"),
    Source("developers-reference", "usr/share/developers-reference/_sources/*.rst.txt", "GPL-2+"),
    Source("debian-reference-en", "usr/share/debian-reference/*.html", "GPL-2+"),
    Source("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html", "GPL-2+ or CC-BY-SA-3.0"),
    Source("maint-guide", "usr/share/doc/maint-guide/html/*.en.html", "GPL-2+"),
)


# --- files to text --------------------------------------------------------------------------------------------

class HtmlText(HTMLParser):
    """The text of a page: no scripts, navigation or forms; a blank line between blocks, `pre` as it stands."""
    SKIP = {"script", "style", "nav", "head", "form", "button", "select", "svg"}
    BLOCK = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "table", "ul", "ol", "dl", "blockquote", "section"}
    LINE = {"li", "tr", "br", "dt", "dd"}

    def __init__(self) -> None:
        super().__init__()
        self.out: list[str] = []
        self.skipped = self.pre = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.skipped += tag in self.SKIP
        self.pre += tag == "pre"
        self.out.append("\n\n" if tag in self.BLOCK else "\n" if tag in self.LINE else "")
        self.out.append("- " if tag == "li" else "")

    def handle_endtag(self, tag: str) -> None:
        self.skipped = max(0, self.skipped - (tag in self.SKIP))
        self.pre = max(0, self.pre - (tag == "pre"))
        self.out.append("\n\n" if tag in self.BLOCK else " " if tag in ("td", "th") else "")

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def text_of(path: Path) -> str:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = raw.decode("utf-8", "replace")
    if path.suffix == ".html":
        parser = HtmlText()
        parser.feed(text)
        text = "".join(parser.out)
        text = re.sub(r"^- *\n+", "- ", re.sub(r"^ (?=\S)", "", text, flags=re.M), flags=re.M)
    return tidy(text)


def tidy(text: str) -> str:
    """NFC, no trailing blanks, at most one empty line in a row."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\t", "    ").replace("¶", ""))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \xa0]+\n", "\n", text)).strip() + "\n"


# --- documents ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Document:
    source: str
    name: str
    text: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def held_out(self) -> bool:
        return int(self.hash[:8], 16) % HELD_OUT == 0


def without_banner(texts: dict[str, str]) -> dict[str, str]:
    """Pages by name, without those of their first 30 lines that a fifth of all pages begin with: menus and titles."""
    begins = Counter(line for t in texts.values() for line in set(t.split("\n")[:30]))
    common = {line for line, n in begins.items() if line and n >= max(5, len(texts) / 5)}
    out = {}
    for name, text in texts.items():
        lines = text.split("\n")
        out[name] = tidy("\n".join([line for line in lines[:30] if line not in common] + lines[30:]))
    return out


def unpack(package: str, folder: Path) -> Path:
    """The package's files under folder/package; downloaded with apt, not installed."""
    to = folder / package
    if not to.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deb = sorted(folder.glob(f"{package}_*.deb"))[-1]
        subprocess.run(["dpkg-deb", "-x", str(deb), str(to)], check=True)
    return to


def documents(folder: Path, sources: tuple[Source, ...] = SOURCES) -> list[Document]:
    """Every document once, in the order of its hash: a shuffle that is the same everywhere."""
    found: dict[str, Document] = {}
    for s in sources:
        root = unpack(s.package, folder)
        paths = sorted(p for p in root.glob(s.glob) if p.is_file() and not p.is_symlink())
        texts = {str(p.relative_to(root)): text_of(p) for p in paths}
        for name, text in (without_banner(texts) if s.glob.endswith(".html") else texts).items():
            d = Document(s.package, name, text)
            if MIN_CHARS <= len(d.text) <= MAX_CHARS:
                found.setdefault(d.hash, d)
    return [found[h] for h in sorted(found)]


def split(docs: list[Document]) -> tuple[list[Document], list[Document]]:
    return [d for d in docs if not d.held_out], [d for d in docs if d.held_out]


def sizes(docs: list[Document]) -> dict[str, tuple[int, int, int]]:
    """Per source: documents, bytes, bytes held out."""
    out: dict[str, tuple[int, int, int]] = {}
    for d in docs:
        n, total, held = out.get(d.source, (0, 0, 0))
        size = len(d.text.encode())
        out[d.source] = (n + 1, total + size, held + size * d.held_out)
    return out


# --- tokens ---------------------------------------------------------------------------------------------------

def pre_tokenized(model):
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    t = Tokenizer(model)
    t.normalizer, t.decoder = normalizers.NFC(), decoders.ByteLevel()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return t


def train_tokenizer(folder: Path, texts: list[str], vocab_size: int) -> None:
    """Qwen2's files, with vocab_size entries: 256 bytes, merges, the ChatML tokens."""
    from tokenizers import models, pre_tokenizers, trainers
    t = pre_tokenized(models.BPE())
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size - len(SPECIAL), show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    merges = [m if isinstance(m, list) else m.split(" ") for m in json.loads(t.to_str())["model"]["merges"]]
    if len(merges) != vocab_size - 256 - len(SPECIAL):
        raise SystemExit(f"vocabulary: got {len(merges) + 256 + len(SPECIAL)} entries from the text, expected {vocab_size}; give more text")
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, [(a, b) for a, b in merges])


def load_tokenizer(folder: Path):
    from tokenizers import AddedToken, models
    t = pre_tokenized(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in SPECIAL])
    return t


def encode(docs: list[Document], tokenizer) -> np.ndarray:
    """All documents one after the other, each ended by <|endoftext|>. A document's own <|...|> stay plain text."""
    end = tokenizer.token_to_id(SPECIAL[0])
    out = []
    for batch in (docs[i:i + 64] for i in range(0, len(docs), 64)):
        for e in tokenizer.encode_batch([d.text.replace("<|", "< |") for d in batch]):
            out += [np.array(e.ids, np.uint16), np.array([end], np.uint16)]
    return np.concatenate(out)


def prepare(folder: Path, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens to train on and held-out tokens; made once and kept in folder, with the tokenizer and corpus.json."""
    if not (folder / "corpus.json").is_file():
        docs = documents(folder / "packages")
        train, held = split(docs)
        train_tokenizer(folder / "tokenizer", [d.text for d in train], vocab_size)
        tokenizer = load_tokenizer(folder / "tokenizer")
        for name, part in (("train", train), ("held_out", held)):
            np.save(folder / f"{name}.npy", encode(part, tokenizer))
        report = {"sha256": hashlib.sha256("".join(d.hash for d in docs).encode()).hexdigest(), "vocab_size": vocab_size,
                  "held_out_bytes": sum(len(d.text.encode()) for d in held), "sources": sizes(docs)}
        (folder / "corpus.json").write_text(json.dumps(report, indent=1) + "\n")
    made = json.loads((folder / "corpus.json").read_text())["vocab_size"]
    if made != vocab_size:
        raise SystemExit(f"{folder}: corpus: got {made} vocabulary entries, expected {vocab_size}; give another --data folder")
    return np.load(folder / "train.npy"), np.load(folder / "held_out.npy")


def main() -> None:
    docs = documents(Path(sys.argv[1]))
    licences = {s.package: s.licence for s in SOURCES}
    for source, (n, size, held) in sizes(docs).items():
        print(f"{source:24} {n:5} documents {size / 1e6:7.2f} MB {held / 1e6:6.2f} MB held out  {licences[source]}")
    print(f"{len(docs)} documents, {sum(len(d.text.encode()) for d in docs) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
