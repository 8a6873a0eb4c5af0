"""LoadedModel: what can be asked of a model: its figures, its vocabulary, its chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from . import chat
from .arguments import flag
from .model import OpenModel, Tokens
from .tokenizer import Text

if TYPE_CHECKING:
    from typing_extensions import Self


class LoadedModel:
    """Llama's calls about the model that it holds."""

    metadata: dict[str, str]
    _model: OpenModel

    # --- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the model. Calling it again is harmless; any other call afterwards raises LlamaError."""
        if hasattr(self, "_model"):  # a constructor may have failed before
            self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the model ---------------------------------------------------------------------------------------------

    def n_vocab(self) -> int:
        """Entries of the vocabulary; width of a row of logits."""
        return self._model.n_vocab()

    def n_embd(self) -> int:
        """Width of the residual stream."""
        with self._model.use() as model:
            width = self.metadata.get(f"{self.metadata.get('general.architecture')}.embedding_length")
            return int(width) if model.vocab_only and width else model.n_embd()

    def token_bos(self) -> int:
        """Beginning-of-sequence token, -1 when there is none."""
        with self._model.use() as model:
            return model.token_bos()

    def token_eos(self) -> int:
        """End-of-sequence token, -1 when there is none. Generation ends on any end-of-generation token, not only it."""
        with self._model.use() as model:
            return model.token_eos()

    def token_nl(self) -> int:
        """Newline token, -1 when there is none."""
        with self._model.use() as model:
            return model.token_nl()

    def model_size(self) -> int:
        """Bytes of all weights."""
        with self._model.use() as model:
            return model.size()

    # --- text and tokens --------------------------------------------------------------------------------------

    def tokenize(self, text: Text, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of a text (bytes: UTF-8; what is not, counts as U+FFFD).

        add_bos: add the tokens that the model's add_bos_token / add_eos_token keys ask for; they ask for none in
        SpikingBrain's. special: recognise control tokens such as <|im_end|> in the text.
        """
        with self._model.use():
            return self._model.tokenizer.encode(text, flag("tokenize: add_bos", add_bos), flag("tokenize: special", special))

    def detokenize(self, tokens: Tokens, prev_tokens: Optional[Tokens] = None, special: bool = False) -> bytes:
        """Bytes of the tokens (maybe a part of a character); special: show control tokens. ValueError: no such token."""
        with self._model.use():
            ids = self._model.ids("detokenize", tokens)
            before = None if prev_tokens is None else self._model.ids("detokenize", prev_tokens).tolist()
            return self._model.tokenizer.decode(ids.tolist(), flag("detokenize: special", special), before)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True,
                            tools: Optional[Sequence[Mapping[str, Any]]] = None, template: Optional[str] = None,
                            **variables: Any) -> str:
        """The prompt for a chat, as transformers' apply_chat_template(..., tokenize=False) renders it.

        template: Jinja source instead of the model's own. ValueError: the template fails or refuses the messages.
        """
        with self._model.use() as model:
            bos, eos = (model.token_text(t).decode("utf-8", "replace") if t >= 0 else ""
                        for t in (model.token_bos(), model.token_eos()))
            if tools is not None:
                variables["tools"] = list(tools)
            return chat.render(model.chat_template() if template is None else template, messages,
                               add_generation_prompt=add_generation_prompt,
                               **{"bos_token": bos, "eos_token": eos, **variables})
