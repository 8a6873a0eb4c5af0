"""The cases as data: what is measured, on which models, in which form of the suite."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import BenchError
from .sides import SIDES
from .shapes import EXAMPLE, LLAMA_1B, LLAMA_DENSE, LLAMA_MOE, QWEN_7B, SPIKING_1B, SPIKING_7B, SPIKING_76B_SMALL, Shape, model_bytes, products, tiny, with_outliers

DEPTHS = (1024, 4096, 16384, 65536, 131072, 262144)
PAPER_FIGURE_7 = {65536: 4.04, 131072: 7.52, 262144: 15.39}  # decode speed over Llama-3.2-1B's
SPECS = ("ngram-simple", "ngram-mod")  # of --spec-type
N_GEN = 256  # tokens of a sample at most; its time comes first
PROMPTS = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True)
class Player:
    """A model on one side, by default ours or upstream, with a setting of that side. `checkpoint`: a folder of this repository that is
    converted instead of drawn."""
    shape: Shape
    type: str = "q4_0"
    spikes: bool = False
    setting: str = ""
    engine: str = ""
    checkpoint: str = ""

    @property
    def side(self) -> str:
        return self.engine or ("ours" if self.shape.window else "upstream")

    @property
    def settings(self) -> dict[str, Any]:
        return SIDES[self.side].settings[self.setting]

    @property
    def name(self) -> str:
        return f"{self.shape.name} {self.type}" + " spikes" * self.spikes + f" {self.setting}" * bool(self.setting)

    @property
    def file(self) -> str:
        return f"{self.shape.name}-{self.type}" + "-spikes" * self.spikes + ".gguf"


@dataclass(frozen=True)
class Case:
    """`kind`: key of run.MEASURE. `seconds`: about how long, on two quiet cores; for the progress bar and the announcement."""
    id: str
    kind: str
    players: tuple[Player, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    seconds: float = 30.0

    def disk(self) -> int:
        """Bytes of the files it needs at once."""
        files = {p.file: model_bytes(p.shape, p.type) for p in self.players}
        return sum(files.values()) + self.params.get("disk", 0)


LLAMA, LLAMA_FA = Player(LLAMA_1B), Player(LLAMA_1B, setting="fa")
LLAMA_Q8 = Player(LLAMA_1B, "q8_0")
PLAIN, SPIKES = Player(SPIKING_1B), Player(SPIKING_1B, spikes=True)
PLAIN_Q8, INT8 = Player(SPIKING_1B, "q8_0"), Player(SPIKING_1B, "int8", spikes=True)
QWEN, QWEN_Q8 = Player(QWEN_7B), Player(QWEN_7B, "q8_0")
BIG, BIG_SPIKES = Player(SPIKING_7B), Player(SPIKING_7B, spikes=True)
BIG_INT8 = Player(SPIKING_7B, "int8", spikes=True)
IK = tuple(Player(LLAMA_1B, setting=setting, engine="ik") for setting in SIDES["ik"].settings)
IK_Q8 = tuple(replace(p, type="q8_0") for p in IK)
INT8_Q8 = Player(SPIKING_1B, "int8-q8", spikes=True)   # the head as in a Q8_0 model
OTHER_TYPES = {type_: tuple(replace(p, type=type_) for p in (LLAMA, LLAMA_FA, *IK, PLAIN, SPIKES)) for type_ in ("q4_k_m", "iq4_xs", "q4_1")}
OUTLIERS = Player(with_outliers(SPIKING_1B), spikes=True)
MOE, MOE_SPIKES, MOE_INT8 = Player(SPIKING_76B_SMALL), Player(SPIKING_76B_SMALL, spikes=True), Player(SPIKING_76B_SMALL, "int8-q8", spikes=True)
MOE_OTHERS = tuple(Player(shape, setting=setting) for shape in (LLAMA_DENSE, LLAMA_MOE) for setting in ("", "fa"))
SMALL = Player(EXAMPLE, spikes=True, checkpoint="examples/small")


def thread_counts(n: int) -> list[int]:
    """1, 2, 4, ... and all."""
    counts = [1 << i for i in range(n.bit_length()) if 1 << i < n]
    return counts + [n]


def decode_cases(n_threads: int) -> list[Case]:
    return [Case(f"decode-1b-d{depth}", "decode", (LLAMA, LLAMA_FA, *IK, PLAIN, SPIKES, INT8),
                 {"depth": depth, "n_gen": N_GEN, "seconds": 2.0, "repetitions": 3, "n_threads": n_threads, "apart": True},
                 quick=depth in (1024, 65536), seconds=85 + depth / 1500) for depth in DEPTHS]


def big_cases(n_threads: int) -> list[Case]:
    cases = [Case(f"decode-7b-d{depth}", "decode", (QWEN, BIG, BIG_SPIKES),
                  {"depth": depth, "n_gen": N_GEN, "seconds": 2.0, "repetitions": 3, "n_threads": n_threads}, seconds=100)
             for depth in (1024, 16384, 65536)]
    cases.append(Case("decode-7b-int8-d1024", "decode", (QWEN_Q8, BIG_INT8),
                      {"depth": 1024, "n_gen": N_GEN, "seconds": 2.0, "repetitions": 3, "n_threads": n_threads}, seconds=100))
    return cases


def moe_cases(n_threads: int) -> list[Case]:
    """The 76B's kind beside a dense model of as many weights per token, and beside upstream's mixture of experts."""
    every = {"seconds": 2.0, "repetitions": 3, "n_threads": n_threads}
    return [
        *(Case(f"decode-moe-d{depth}", "decode", (*MOE_OTHERS, MOE, MOE_SPIKES), every | {"depth": depth, "n_gen": N_GEN}, seconds=90)
          for depth in (1024, 16384, 65536)),
        Case("decode-moe-int8-d1024", "decode", (*(replace(p, type="q8_0") for p in MOE_OTHERS), MOE_INT8), every | {"depth": 1024, "n_gen": N_GEN}, seconds=90),
        Case("prefill-moe-n512", "prefill", (*MOE_OTHERS, MOE, MOE_SPIKES), every | {"n_prompt": 512}, seconds=120),
    ]


def roofline_cases(n_threads: int) -> list[Case]:
    return [Case(f"roofline-1b-t{t}", "decode", (LLAMA, LLAMA_Q8, *IK, *IK_Q8, PLAIN, SPIKES, OUTLIERS, PLAIN_Q8, INT8, INT8_Q8),
                 {"depth": 512, "n_gen": N_GEN, "seconds": 2.0, "repetitions": 3, "n_threads": t}, seconds=170)
            for t in thread_counts(n_threads)]


def batch_cases(n_threads: int) -> list[Case]:
    return [Case(f"batch-1b-s{n}", "decode", (LLAMA, PLAIN, SPIKES),
                 {"depth": 512, "n_gen": N_GEN // n, "seconds": 2.0, "repetitions": 3, "n_threads": n_threads, "n_seq": n}, seconds=40 + n)
            for n in (1, 4, 16)]


def type_cases(n_threads: int) -> list[Case]:
    """Q4_K_M, the type that most files have, and others that are no Q4_0."""
    every = {"seconds": 2.0, "repetitions": 3, "n_threads": n_threads}
    return [case for type_, players in OTHER_TYPES.items() for case in (
        Case(f"types-decode-{type_}-d1024", "decode", players, every | {"depth": 1024, "n_gen": N_GEN}, seconds=120),
        Case(f"types-prefill-{type_}-n512", "prefill", players, every | {"n_prompt": 512}, seconds=100))]


def shared_cases(n_threads: int) -> list[Case]:
    """Two processes that do not know of each other: two servers, a server and a notebook."""
    return [Case("shared-1b-p2", "shared", (LLAMA, *IK, PLAIN, SPIKES), {"depth": 512, "n_gen": N_GEN, "seconds": 2.0, "repetitions": 3,
                                                                        "n_threads": n_threads, "processes": 2}, seconds=150)]


def prefill_cases(n_threads: int) -> list[Case]:
    who = (LLAMA, PLAIN, SPIKES, *IK)
    return [
        Case("prefill-1b-n512", "prefill", (*who, LLAMA_FA), {"n_prompt": 512, "seconds": 2.0, "repetitions": 3, "n_threads": n_threads}, quick=True, seconds=90),
        Case("prefill-1b-n4096", "prefill", who, {"n_prompt": 4096, "seconds": 2.0, "repetitions": 2, "n_threads": n_threads,
                                                  "as_in": "prefill-1b-n512"}, seconds=300),
        *(Case(f"prefill-1b-at{d}", "prefill", who, {"n_prompt": 128, "depth": d, "most": 4, "seconds": 2.0, "repetitions": 2, "n_threads": n_threads,
                                                     "as_in": "prefill-1b-n512"}, seconds=40 + d / 700) for d in (16384, 65536)),
        Case("prefill-1b-n16384", "prefill", who, {"n_prompt": 16384, "seconds": 2.0, "repetitions": 1, "n_threads": n_threads,
                                                   "as_in": "prefill-1b-n512"}, seconds=500),
        Case("prefill-1b-fit", "fit", who, {"prompts": PROMPTS, "n_threads": n_threads}, quick=False, seconds=1),
    ]


def target_cases(n_threads: int) -> list[Case]:
    """The figures of report/targets.py, in about 20 minutes on two quiet cores; 16k prompts of the slowest peer seen take 20 more."""
    every = {"seconds": 2.0, "n_gen": N_GEN}
    counts = sorted({1, n_threads})
    deep = tuple(p for p in IK if p.setting in ("ik rtr", "ik rtr q8"))
    return [
        Case("targets-prompt", "prefill", (LLAMA, LLAMA_FA, *IK, PLAIN, SPIKES), every | {"n_prompt": 512, "repetitions": 5, "n_threads": n_threads}, seconds=100),
        *(Case(f"targets-decode-t{t}", "decode", (*IK, *IK_Q8, PLAIN, SPIKES, INT8_Q8),
               every | {"depth": 1024, "repetitions": 4, "n_threads": t}, seconds=135) for t in counts),
        Case("targets-together", "verify", (SPIKES,), {"depth": 1024, "sizes": (1, 4, 8), "seconds": 2.0, "repetitions": 5, "n_threads": n_threads}, seconds=25),
        Case("targets-depths", "depths", (PLAIN, SPIKES), every | {"depths": (1, 4096, 262144), "repetitions": 4, "n_threads": n_threads}, seconds=70),
        Case("targets-deep", "decode", (*deep, PLAIN, SPIKES),
             every | {"depth": 262144, "repetitions": 2, "n_threads": n_threads, "apart": True}, seconds=90),
        Case("targets-long", "prefill", (*IK, SPIKES), {"n_prompt": 16384, "seconds": 2.0, "repetitions": 3, "n_threads": n_threads,
                                                        "as_in": "targets-prompt"}, seconds=480),
        Case("targets-drafts", "drafts", (SMALL,), {"spec": "ngram-mod", "texts": ["quoting", "JSON"], "n_gen": 256, "repetitions": 5, "n_threads": 1}, seconds=15),
    ]


def operator_cases(n_threads: int) -> list[Case]:
    cases = []
    for shape, label in ((LLAMA_1B, "1b"), (QWEN_7B, "7b")):
        heads = {"d": shape.head, "H": shape.n_head, "G": shape.n_head_kv}
        for t in thread_counts(n_threads):
            cases.append(Case(f"operators-{label}-t{t}", "operators", (), {"n_threads": t, "seconds": 0.4, "operators": [
                *({"op": "gla", "T": T, **heads} for T in (1, 512)),
                *({"op": "swa", "T": T, "type": type_, "window": 4096, **heads} for T in (1, 64) for type_ in ("f16", "i8")),
                *({"op": "encode", "n": n, "T": T} for n in (shape.n_embd, shape.n_ff) for T in (1, 512))]}, seconds=15))
        cases.append(Case(f"products-{label}", "products", (), {"n_threads": n_threads, "seconds": 1.0, "T": (1, 128),
                          "types": ("q4_0", "q8_0", "i8"), "shapes": [p[:2] for p in products(shape)[:-1]]}, seconds=50))
    cases.append(Case("products-step-1b", "step", (), {"n_threads": n_threads, "repetitions": 10, "type": "q4_0", "products": products(LLAMA_1B)},
                      quick=True, seconds=20))
    return cases


def event_cases() -> list[Case]:
    """On one thread, as the first sketch of it."""
    return [Case("events", "events", (), {"n_threads": 1, "shape": (2048, 8192), "groups": (1, 4, 8), "silent": tuple(i / 10 for i in range(10)),
                                          "seconds": 0.5, "repetitions": 5}, seconds=60)]


def back_cases(n_threads: int) -> list[Case]:
    """What taking tails back costs and what it is for."""
    sizes, every = (1, 2, 4, 8), {"n_threads": n_threads}
    return [
        *(Case(f"verify-1b-t{t}", "verify", (LLAMA, PLAIN, SPIKES, INT8),
               {"depth": 1024, "sizes": sizes, "seconds": 2.0, "repetitions": 5, "n_threads": t}, seconds=80 + 20 / t) for t in sorted({1, n_threads})),
        Case("rollback-1b", "rollback", (PLAIN, SPIKES), {"depth": 512, "n_back": (1, 8), "repetitions": 8, **every}, seconds=40),
        *(Case(f"before-{name}-t{t}", "before", (player,), {"depth": 512, "n_gen": n_gen, "repetitions": 5, "rounds": rounds, "n_threads": t}, seconds=30)
          for name, player, n_gen, rounds in (("small", SMALL, 512, 12), ("1b", PLAIN, 32, 4)) for t in sorted({1, n_threads})),
        *(Case(f"drafts-{spec}", "drafts", (SMALL,), {"spec": spec, "n_gen": 256, "repetitions": 11, "n_threads": 1}, seconds=20) for spec in SPECS),
    ]


def big_back_cases(n_threads: int) -> list[Case]:
    """Beside the 7B cases, whose files they share."""
    return [
        Case("rollback-7b", "rollback", (BIG,), {"depth": 512, "n_back": (1, 8), "repetitions": 4, "n_threads": n_threads}, seconds=60),
        Case("state", "state", (PLAIN, SPIKES, BIG, BIG_SPIKES), {"n_threads": n_threads}, seconds=60),
    ]


def all_cases(n_threads: int) -> list[Case]:
    """Every case of the suite, neighbours sharing their models where they can."""
    every = (LLAMA, PLAIN, SPIKES, INT8)
    return [
        *decode_cases(n_threads), *prefill_cases(n_threads),
        Case("validate-1b-d4096", "validate", (LLAMA, IK[-2], PLAIN), {"depth": 4096, "n_gen": 16, "repetitions": 5, "n_threads": n_threads}, seconds=200),
        *batch_cases(n_threads), *type_cases(n_threads), *shared_cases(n_threads),
        Case("python-1b", "python", (PLAIN,), {"n_prompt": 128, "n_gen": 48, "seconds": 4.0, "repetitions": 6, "n_threads": n_threads},
             quick=True, seconds=60),
        Case("load-1b", "load", every, {"repetitions": 3, "n_threads": n_threads}, seconds=30),
        *roofline_cases(n_threads), *back_cases(n_threads), *operator_cases(n_threads), *event_cases(),
        Case("convert-1b", "convert", (), {"n_threads": n_threads, "disk": 12 << 30, "repetitions": 2}, seconds=240),
        *big_cases(n_threads), *moe_cases(n_threads), *big_back_cases(n_threads), *target_cases(n_threads),
    ]


def tiny_case(case: Case) -> Case:
    """The case on tiny shapes, shallow and short: to try the suite out, never for figures."""
    players = tuple(p if p.checkpoint else replace(p, shape=tiny(p.shape)) for p in case.players)
    p = dict(case.params)
    for name, most in (("depth", 2048), ("n_gen", 2), ("n_prompt", 64), ("repetitions", 2), ("rounds", 2), ("seconds", 0.05), ("disk", 1 << 27)):
        if name in p:
            p[name] = min(p[name], most)
    if "depths" in p:
        p["depths"] = (1, 128, 2048)
    if "operators" in p:
        p["operators"] = [op | {k: v for k, v in (("d", 32), ("H", 4), ("G", 2), ("n", 256), ("window", 64)) if k in op} for op in p["operators"]]
    if "shapes" in p:
        p["shapes"] = [(256, 256)]
    if "groups" in p:
        p |= {"shape": (256, 256), "silent": (0.0, 0.5)}
    return replace(case, players=players, params=p, seconds=1)


def check_threads(n_threads: int) -> None:
    """Raises BenchError where there are not so many CPUs."""
    if not 1 <= n_threads <= len(os.sched_getaffinity(0)):
        raise BenchError(f"bench: threads: got {n_threads}, expected 1 .. {len(os.sched_getaffinity(0))}; do correct --threads")


def select(form: str, only: list[str], n_threads: int, small: bool = False) -> list[Case]:
    """Cases of a form (`quick` or `full`), or those whose id begins with one of `only`. Raises BenchError where none does."""
    check_threads(n_threads)
    cases = all_cases(n_threads)
    for prefix in only:
        if not any(c.id.startswith(prefix) for c in cases):
            raise BenchError(f"bench: --only: got {prefix!r}, expected the beginning of a case's name; do see `python -m bench cases`")
    cases = [c for c in cases if any(c.id.startswith(x) for x in only)] if only else [c for c in cases if c.quick or (form == "full" and not c.id.startswith("targets-"))]
    return [tiny_case(c) for c in cases] if small else cases
