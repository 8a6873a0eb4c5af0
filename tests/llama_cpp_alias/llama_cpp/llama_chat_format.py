"""A formatter of a Hugging Face tokenizer_config, as llama-cpp-python has it, on our rendering of templates."""

from types import SimpleNamespace

from spikingbrain_cpp import chat


def hf_tokenizer_config_to_chat_formatter(config, add_generation_prompt=True):
    def formatter(messages):
        blank = [{"role": "assistant", "content": ""}] if add_generation_prompt else []  # its way of asking for an answer
        return SimpleNamespace(prompt=chat.render(config["chat_template"], [*messages, *blank], bos_token=config["bos_token"],
                                                  eos_token=config["eos_token"]))
    return formatter
