"""Exact bytes and close figures of examples/tiny: a rounding that moves, anywhere between checkpoint and logits, is seen here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest
from binding_models import ONE, convert
from conftest import ROOT
from test_convert_tensors import pattern

from spikingbrain_cpp import Llama
from spikingbrain_cpp.spikes import count

TINY = ROOT / "examples" / "tiny"
TOKENS = [17, 300, 42, 5, 5, 123, 77, 260, 9, 411]  # longer than nothing, shorter than a window


def digest(path: Path) -> str:
    """Of every tensor's name, shape, type and bytes."""
    h = hashlib.sha256()
    for t in gguf.GGUFReader(path).tensors:
        h.update(f"{t.name} {t.shape.tolist()} {t.tensor_type.name}".encode() + t.data.tobytes())
    return h.hexdigest()[:16]


@pytest.mark.parametrize("options, expected", [
    (["--outtype", "f32"], "209640c81476f1f8"), (["--outtype", "f16"], "ba543c65e09b1922"), (["--outtype", "bf16"], "fd17b41b8f4ba125"), (["--outtype", "q8_0"], "da666af28e4a50a1"), (["--outtype", "q4_0"], "49ba49f19bf569de"),
    (["--outtype", "int8", "--spike"], "8b10e3f24b6669b1"), (["--outtype", "q4_0", "--spike", "--spike-scope", "released"], "0b9b0350077b18fc"),
    (["--outtype", "int8", "--spike", "--spike-scope", "released", "--spike-down-type", "q8_0"], "62c54f5b970e5ca5")])
def test_bytes_of_every_type(tmp_path, options, expected):
    assert digest(convert(TINY, tmp_path / "x.gguf", *options)) == expected


@pytest.mark.parametrize("scope, expected", [("paper", "deb3d43822e1f37d"), ("released", "9b7b9aaf1fe264e6")])
def test_bytes_of_codes_with_a_checkpoints_scales(make_checkpoint, tmp_path, scope, expected):
    """Weights in steps of 2^-16 and scales of 1/254: many lie half between two codes, some outside int8."""
    def tensors(held):
        made = pattern(held)
        return made | {name: np.full(t.shape, 1 / 254, np.float32) for name, t in held.items() if name.endswith("scales")}
    folder = make_checkpoint(scales=True, tensors=tensors)
    assert digest(convert(folder, tmp_path / "x.gguf", "--spike-scope", scope)) == expected


@pytest.mark.parametrize("outtype, spike, tolerance, expected", [
    ("f32", None, 2e-3, [-0.6947, 1.1056, 0.4237, -0.2522, -0.9732, 0.2739, 1.2431, -0.3932]),
    ("f32", True, 3e-2, [-0.8373, 1.2585, 0.2421, -0.6757, -0.9399, 0.1518, 1.2195, -0.4557]),
    ("q8_0", None, 2e-2, [-0.6763, 1.1227, 0.4087, -0.2167, -0.9765, 0.2344, 1.2357, -0.3738]),
    ("q4_0", None, 5e-2, [-0.9918, 1.0200, 0.6006, -0.1085, -0.6436, 0.0369, 1.6757, -0.5232]),
    ("q4_0", True, 3e-2, [-0.8335, 1.1747, 0.4142, -0.1479, -0.7583, -0.1343, 1.6023, -0.2541])])
def test_logits_of_a_fixed_prompt(tmp_path, outtype, spike, tolerance, expected):
    """Eight of the last row. Float sums differ a little from CPU to CPU, and may move a count or a code of an activation by one."""
    with Llama(convert(TINY, tmp_path / "x.gguf", "--outtype", outtype), spike=spike, **ONE) as llm:
        llm.eval(TOKENS)
        assert llm.logits[::64] == pytest.approx(expected, abs=tolerance)


def test_counts_of_a_fixed_row():
    """Eq. 19: halves to even, the threshold a third of the mean magnitude."""
    x = np.array([[0.5, -0.5, 1.5, -2.5, 3.5, 0.49, -0.51, 11.02], [1, 2, 3, 4, -5, -6, -7, -8]], np.float32)
    counts, v_th = count(x, 3.0)
    assert v_th == pytest.approx([0.855, 1.5], abs=1e-6)
    assert counts.tolist() == [[1, -1, 2, -3, 4, 1, -1, 13], [1, 1, 2, 3, -3, -4, -5, -5]]
