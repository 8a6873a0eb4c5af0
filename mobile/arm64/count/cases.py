"""What is counted, as data: variants (which kernels run) and cases (what they compute)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from bench.shapes import SPIKING_1B, SPIKING_7B

# builds of the driver by what the compiler may use: upstream's kernels are chosen by it, ours at run time in each of them
MARCH = {"armv8.0": "armv8-a", "armv8.2": "armv8.2-a+dotprod+fp16", "armv8.6": "armv8.6-a+dotprod+fp16+i8mm",
         "armv8.6 sve": "armv8.6-a+dotprod+fp16+sve+i8mm"}
ISAS = ("generic", "dotprod", "i8mm")
LEVEL = dict(zip(ISAS, MARCH))  # which of upstream's builds has as much of the CPU as ours


@dataclass(frozen=True)
class Variant:
    """`isa`: of our kernels (SPIKINGBRAIN_ISA). `upstream`: the product is llama.cpp's own, from weights in `weights_in`. `bits`: of SVE's vectors."""
    name: str
    build: str
    isa: str
    upstream: bool = False
    weights_in: str = ""
    bits: int = 0

    @property
    def cpu(self) -> str:
        """Of qemu."""
        return f"max,sve-default-vector-length={self.bits // 8}" if self.bits else "max"


OURS = tuple(Variant(f"ours {isa}", "armv8.0", isa) for isa in ISAS)
UPSTREAM = (Variant("upstream armv8.0", "armv8.0", "generic", True, "CPU"),  # no repacked kernels at this level
            *(Variant(f"upstream {level}{suffix}", level, isa, True, buffer) for level, isa in (("armv8.2", "dotprod"), ("armv8.6", "i8mm"))
              for suffix, buffer in (("", "CPU"), (" repack", "CPU_REPACK"))))
# as the package's libraries pair them: their compilers' targets matter to what is llama.cpp's, not to our kernels
TOKENS = (*(Variant(f"{isa}, {level}", level, isa) for isa, level in LEVEL.items()),
          *(Variant(f"i8mm, armv8.6 sve {bits}", "armv8.6 sve", "i8mm", bits=bits) for bits in (128, 256, 512)))


@dataclass(frozen=True)
class Case:
    """`kind`: product, operator, decode or prefill. `request`: of op_build, or the model's options of sb-convert. `T`: tokens."""
    name: str
    kind: str
    T: int
    request: dict[str, Any] = field(default_factory=dict)
    type: Optional[str] = None
    spikes: bool = True


def product(n: int, m: int, T: int, type_: str) -> Case:
    return Case(f"{n}x{m} {type_} T={T}", "product", T, {"op": "products", "type": type_, "T": T, "products": [[n, m, 1]]}, type_)


def operator(op: str, T: int, **request: Any) -> Case:
    what = " ".join(f"{k}={v}" for k, v in request.items())
    return Case(f"{op} {what} T={T}", "operator", T, {"op": op, "T": T, **request}, request.get("type"))


def heads(shape: Any) -> dict[str, int]:
    return {"d": shape.head, "H": shape.n_head, "G": shape.n_head_kv}


E, FF = SPIKING_1B.n_embd, SPIKING_1B.n_ff
PRODUCTS = [product(n, E, T, type_) for type_ in ("q4_0", "q8_0", "i8", "q4_K", "q6_K") for n, T in ((E, 1), (FF, 1), (E, 8), (E, 32))]
OPERATORS = [
    *(operator("gla", T, **heads(shape)) for shape in (SPIKING_1B, SPIKING_7B) for T in (1, 16)),
    *(operator("swa", T, **heads(SPIKING_1B), window=512, type=type_) for type_ in ("f16", "i8") for T in (1, 16)),
    *(operator("encode", T, n=E) for T in (1, 16)),
]
MODELS = {"q4_0 spikes": ["--outtype", "q4_0", "--spike"], "int8 spikes": ["--outtype", "int8", "--spike"], "q4_0": ["--outtype", "q4_0"]}
MODEL_CASES = [Case(f"{kind} {name}", kind, T, {"options": options}, name.split()[0], "spikes" in name)
               for name, options in MODELS.items() for kind, T in (("decode", 1), ("prefill", 64))]


def macs(case: Case) -> Optional[int]:
    """Multiplications with an addition that one call does; None for what is no product."""
    if case.kind != "product":
        return None
    return sum(n * m * count for n, m, count in case.request["products"]) * case.T


def work() -> list[tuple[Case, Variant]]:
    """Everything that is counted. A product that upstream has no type for is compared with Q8_0, the nearest in bytes."""
    return [*((c, v) for c in PRODUCTS for v in (*OURS, *UPSTREAM)), *((c, v) for c in OPERATORS for v in OURS),
            *((c, v) for c in MODEL_CASES for v in TOKENS)]
