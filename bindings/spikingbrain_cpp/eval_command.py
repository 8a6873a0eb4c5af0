"""sb-eval: lm_eval's command line with SpikingBrainLM among its models. lm_eval's own command looks for no models in other packages."""

from __future__ import annotations

import sys

from sb_convert.version import version_line

from .errors import LlamaError
from .pipes import ends_with_the_reader
from .tools import COMMANDS

DEFAULTS = {("--model", "-M"): "spikingbrain", ("--batch_size", "-b"): "auto", ("--device",): "cpu"}
HELP = f"""sb-eval: {COMMANDS["sb-eval"]}. Takes what lm_eval takes, and has for its defaults --model spikingbrain --batch_size auto --device cpu:

  sb-eval --model_args pretrained=model.gguf,spike_k=2.5 --tasks hellaswag,piqa

model_args: pretrained (a GGUF file), max_length, max_gen_toks, prefix_token_id, seed, and of Llama's arguments spike, spike_k, n_threads, lora_path, ...;
a name that is none of them is refused with the list. Below is lm_eval's own help.
"""


def arguments(given: list[str]) -> list[str]:
    """With `run`, where no other command of lm_eval is named, and its defaults."""
    if given[:1] in (["ls"], ["validate"]):
        return given
    rest = given[1:] if given[:1] == ["run"] else given
    named = {argument.split("=")[0] for argument in rest}
    for names, value in DEFAULTS.items():
        if not named & set(names):
            rest = [*rest, names[0], value]
    return ["run", *rest]


def command() -> None:
    """Run lm_eval with this process's arguments."""
    given = sys.argv[1:]
    if given == ["--version"]:
        print(version_line("sb-eval"))
        return
    asks = not given or bool({"-h", "--help"} & set(given))
    if asks:
        with ends_with_the_reader():
            print(HELP, flush=True)
    try:
        from lm_eval.__main__ import cli_evaluate

        from . import evaluation  # noqa: F401 - registers the model
    except ImportError as error:
        missing = f'lm_eval: got {error}, expected the package; do pip install "spikingbrain-cpp[eval]"'
        if not asks:
            sys.exit(f"sb-eval: {missing}")
        print(f"(no --help of it here: {missing})")
        return
    sys.argv[1:] = arguments(given) if given else ["run", "--help"]
    try:
        cli_evaluate()
    except (LlamaError, ValueError, TypeError) as error:
        if not str(error).startswith(("eval: ", "llama: ", "score: ", "generate_many: ")):
            raise
        sys.exit(f"sb-eval: {error}")
