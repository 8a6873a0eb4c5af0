"""Beginnings: sequences of tokens as a tree of parts, so that what several begin with is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from .model import Ids

MIN_SHARED = 16  # tokens; fewer are read again, which takes less than to copy a state
MAX_HEIGHT = 3   # parts that wait above another while it is read, each in a sequence of its own

Target = tuple[int, int, int]  # position, the token that may come after it, the scored item it counts for


@dataclass
class Scored:
    """Tokens of which those from n_context on are scored, each after all before it. 1 <= n_context < len(tokens)."""

    tokens: Ids
    n_context: int

    @property
    def read(self) -> Ids:
        """What must be read: the last token is scored only."""
        return self.tokens[:-1]


@dataclass(eq=False)
class Part:
    """Tokens from position `start` on that one or more items have in common, and what differs after them."""

    start: int
    tokens: Ids
    targets: list[Target] = field(default_factory=list)
    children: list[Part] = field(default_factory=list)
    height: int = 0  # longest chain of parts below
    length: int = 0  # position behind the longest item's last token

    @property
    def end(self) -> int:
        """Where it ends in the tokens."""
        return self.start + int(self.tokens.size)

    def saved(self) -> int:
        """Tokens that are not read again because of it."""
        return int(self.tokens.size) * (len(self.children) - 1)


def n_common(a: Ids, b: Ids) -> int:
    """Tokens that both begin with."""
    n = min(a.size, b.size)
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if differ.size else n


def order_key(item: Scored) -> bytes:
    """Sorts by tokens: those with a common beginning are neighbours."""
    return item.read.astype(">i4").tobytes()


def parts_of(items: Sequence[tuple[int, Scored]]) -> list[Part]:
    """Trees of items (number, item) that are sorted by order_key, the longest first."""
    root = Part(0, np.empty(0, np.int32))
    above, before = [root], root.tokens
    for number, item in items:
        path = item.read
        _leave(above, n_common(before, path))
        if path.size > above[-1].end:
            part = Part(above[-1].end, path[above[-1].end:])
            above[-1].children.append(part)
            above.append(part)
        _aim(above, number, item)
        before = path
    _trim(root)
    return root.children


def _leave(above: list[Part], common: int) -> None:
    """Go up to the part that ends where the next path parts from the last one, cutting one in two there."""
    while above[-1].end > common:
        part = above.pop()
        if above[-1].end < common:
            cut = common - part.start
            upper = Part(part.start, part.tokens[:cut], [t for t in part.targets if t[0] < common], [part])
            part.start, part.tokens, part.targets = common, part.tokens[cut:], [t for t in part.targets if t[0] >= common]
            above[-1].children[-1] = upper
            above.append(upper)


def _aim(above: list[Part], number: int, item: Scored) -> None:
    """Give the targets of an item to the parts of its path."""
    i = len(above) - 1
    for at in range(item.tokens.size - 2, item.n_context - 2, -1):
        while above[i].start > at:
            i -= 1
        above[i].targets.append((at, int(item.tokens[at + 1]), number))


def _trim(root: Part) -> None:
    """Keep the branches that are worth a copy of the state, MAX_HEIGHT above one another."""
    for part in reversed(list(_walk(root))):  # children first
        part.children = [kept for child in part.children for kept in _kept(child)]
        part.height = max((child.height + 1 for child in part.children), default=0)
        if part is not root and part.height > MAX_HEIGHT:
            high = [child for child in part.children if child.height == MAX_HEIGHT]
            if sum(child.saved() for child in high) < part.saved():
                part.children = [kept for child in part.children for kept in (_dissolved(child) if child in high else [child])]
                part.height = MAX_HEIGHT
        part.length = max((child.length for child in part.children), default=part.end)
        part.children.sort(key=lambda child: child.length)  # the last is taken first
        part.targets.sort()
    root.children.reverse()


def _walk(root: Part) -> Iterator[Part]:
    todo = [root]
    while todo:
        part = todo.pop()
        yield part
        todo += part.children


def _kept(part: Part) -> list[Part]:
    return _dissolved(part) if part.children and (part.tokens.size < MIN_SHARED or part.height > MAX_HEIGHT) else [part]


def _dissolved(part: Part) -> list[Part]:
    """Its children, each with its tokens before their own; the first reads its targets."""
    for child in part.children:
        child.start, child.tokens = part.start, np.concatenate([part.tokens, child.tokens])
    part.children[0].targets = part.targets + part.children[0].targets
    return part.children
