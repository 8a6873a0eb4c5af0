"""Bytes that are almost a valid file: a strategy of mutations, which shrinks to few of them."""

from __future__ import annotations

from hypothesis import strategies as st

EDGES = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**64 - 1]


def mutations(n: int) -> st.SearchStrategy[list[tuple[str, int, int, bytes]]]:
    """Up to eight changes of a file whose first n bytes are worth changing."""
    at = st.integers(0, max(0, n - 1))
    return st.lists(st.one_of(
        st.tuples(st.just("flip"), at, st.integers(0, 7), st.just(b"")),
        st.tuples(st.just("write"), at, st.just(0), st.binary(min_size=1, max_size=8)),
        st.tuples(st.sampled_from(["u32", "u64"]), at, st.sampled_from(EDGES), st.just(b"")),
        st.tuples(st.just("insert"), at, st.just(0), st.binary(min_size=1, max_size=16)),
        st.tuples(st.sampled_from(["delete", "repeat"]), at, st.integers(1, 64), st.just(b"")),
        st.tuples(st.just("cut"), at, st.just(0), st.just(b"")),
    ), min_size=1, max_size=8)


def mutated(raw: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    out = bytearray(raw)
    for kind, at, number, text in changes:
        at = min(at, len(out))
        if kind == "flip" and at < len(out):
            out[at] ^= 1 << number
        elif kind == "write":
            out[at:at + len(text)] = text
        elif kind in ("u32", "u64"):
            width = 4 if kind == "u32" else 8
            out[at:at + width] = (number % 2**(8 * width)).to_bytes(width, "little")
        elif kind == "insert":
            out[at:at] = text
        elif kind == "delete":
            del out[at:at + number]
        elif kind == "repeat":
            out[at:at] = out[at:at + number]
        elif kind == "cut":
            del out[at:]
    return bytes(out)


# any JSON value, small
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(EDGES) | st.floats() | st.text(max_size=20) | st.sampled_from(["", "auto", "\u0000", "\ud800", "1e400"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=8)


@st.composite
def edited(draw, tree, depth: int = 0):
    """A JSON tree with some of its values replaced, removed, doubled or added."""
    if depth < 4 and isinstance(tree, dict) and tree and draw(st.integers(0, 9)) < 8:
        key = draw(st.sampled_from(sorted(tree)))
        kind = draw(st.sampled_from(["into", "into", "replace", "remove", "add"]))
        out = dict(tree)
        if kind == "remove":
            del out[key]
        elif kind == "add":
            out[draw(st.sampled_from(sorted(tree)) | st.text(max_size=12))] = draw(JSON)
        else:
            out[key] = draw(edited(tree[key], depth + 1)) if kind == "into" else draw(JSON)
        return out
    if depth < 4 and isinstance(tree, list) and tree and draw(st.integers(0, 9)) < 8:
        i = draw(st.integers(0, len(tree) - 1))
        kind = draw(st.sampled_from(["into", "replace", "remove", "double"]))
        if kind == "into":
            return tree[:i] + [draw(edited(tree[i], depth + 1))] + tree[i + 1:]
        return tree[:i] + ([draw(JSON)] if kind == "replace" else [tree[i], tree[i]] if kind == "double" else []) + tree[i + 1:]
    return draw(JSON)
