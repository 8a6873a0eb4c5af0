"""How many tokens are drafted, and when: by hand, without a model."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("spikingbrain_cpp")

from spikingbrain_cpp.drafts import Drafts, counts  # noqa: E402


class Held:
    """A sequence of 100 tokens."""

    history = property(lambda self: self)

    def n(self) -> int:
        return 100

    def last(self, n: int, k: int):
        assert (n, k) == (100, 100)
        return np.zeros(100, np.int32)


def played(right, steps: int, n_most: int = 32, trusted: bool = True, room: int = 100, said=None) -> tuple[str, Drafts]:
    """What each step does: "8" reads 8 guessed tokens, "t2" asks for 2 and reads none, "." asks for none. right: of n guessed tokens, how many come true."""
    asked = []

    def guesser(ids, n, cancel):
        assert ids.size == 101 and not ids.flags.writeable and cancel == "token"
        asked.append(n)
        return np.full(n if said is None else min(n, said), 7, np.int32)
    drafts, out, tokens = Drafts(guesser, n_most, trusted), [], 0
    for _ in range(steps):
        n_asked = len(asked)
        guess = drafts.guess(Held(), np.array([7 if right(2, tokens) == 2 else 8], np.int32), lambda n: room, "token")
        tokens += 1
        out.append(str(guess.size) if guess.size else "." if len(asked) == n_asked else f"t{asked[-1]}")
        if guess.size:
            drafts.accept(right(guess.size, tokens))
    return " ".join(out), drafts


@pytest.mark.parametrize("right, options, steps", [
    (lambda n, at: n, {}, "4 8 16 32 32"),                                              # all right: twice as many
    (lambda n, at: n, {"n_most": 6}, "4 6 6"), (lambda n, at: n, {"room": 3}, "3 3"), (lambda n, at: n, {"room": 0}, ". ."),
    (lambda n, at: n, {"trusted": False}, "t2 . 4 8 16"),                               # the trial's two tokens come first
    (lambda n, at: 0, {}, "4 . . t2 . . . . . t2 . . . . . . . . . t2 . . . . . . . . . . . . . . . . . t2 . . . . . . . . . . . . . . . . . t2"),
    (lambda n, at: 0, {"trusted": False}, "t2 . . . t2 . . . . . t2"),
    (lambda n, at: n - 1, {}, "4 4 4 4"),                                               # 3 of 4 pay for themselves
    (lambda n, at: n if at < 3 else n - 1, {}, "4 8 16 15 14 13"),                      # (16 + 15) // 2
    (lambda n, at: n if at < 4 else 0, {}, "4 8 16 32 . . t2 ."),                       # what was put by is no more than four decodes
    (lambda n, at: 0 if at == 4 else n, {"n_most": 4}, "4 4 4 4 4 4"),                 # one miss after three hits is forgiven
    (lambda n, at: 0 if at == 3 else n, {"n_most": 4}, "4 4 4 . . t2 . 4"),            # after two it is not
    (lambda n, at: 0, {"said": 0}, "t4 . t4 . . t4 . . . t4 . . . . t4 . . . . t4"),    # nothing is guessed: it is asked less often
    (lambda n, at: n, {"said": 1}, "1 . . t2 1 . . . . t2"),               # a token alone does not pay
])
def test_when_and_how_much_is_drafted(right, options, steps):
    assert played(right, len(steps.split()), **options)[0] == steps


def test_a_hit_ends_the_misses():
    """Pauses begin anew with the shortest."""
    once, _ = played(lambda n, at: n if at in (4, 5, 6, 7) else 0, 17)
    assert once == "4 . . t2 . 4 8 16 . . t2 . . . . . t2"


def test_what_became_of_them_is_counted():
    _, drafts = played(lambda n, at: n - 1, 3)
    assert counts(drafts) == {"draft_n": 12, "draft_n_accepted": 9} and counts(None) == {"draft_n": 0, "draft_n_accepted": 0}
