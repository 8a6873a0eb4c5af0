"""Text of the Android library is Python's: tokens, prompts, draws, streams, chats."""

from __future__ import annotations

import pytest
from jvm import greedy, jvm, llama, prompt, spiking, tiny  # noqa: F401

RAN = {"Java API, JNI, native part": "on a desktop JVM (OpenJDK 17, `-Xcheck:jni`, x86-64 Linux)"}
LINES = ["hello the cat", "cafe\u0301 nai\u0308ve", "日本語 🙂 \u2028 x", "<|im_start|>user\\nhi<|im_end|>\u0301", "a\\u0000b", "\u1e9b\u0323 ﬁ", " leading", ""]


def test_tokens_are_pythons(jvm, spiking, tiny, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    for path in (spiking, tiny):
        said = jvm.all("Text", "tokenize", path, file)
        ids, plain, back = ([v for k, v in said if k == name] for name in ("ids", "plain", "back"))
        with llama(path) as llm:
            texts = [line.replace("\\n", "\n").replace("\\u0000", "\0") for line in LINES]
            assert ids == [llm.tokenize(t, special=True) for t in texts]
            assert plain == [llm.tokenize(t) for t in texts]
            assert back == [llm.detokenize(i, special=True).decode("utf-8", "replace") for i in ids]
            assert dict(said)["lone"] == llm.tokenize("a\ud800b", add_bos=False)


@pytest.mark.parametrize("temperature, top_k, top_p, min_p, repeat, seed", [
    (0, 40, 0.95, 0.05, 1.0, 1), (0.8, 40, 0.95, 0.05, 1.0, 1), (1.2, 0, 1.0, 0.0, 1.3, 99), (0, 40, 0.95, 0.05, 1.5, 1), (-1, 40, 0.95, 0.05, 1.0, 4294967294)])
def test_equal_seeds_draw_what_python_draws(jvm, spiking, prompt, temperature, top_k, top_p, min_p, repeat, seed):
    said = jvm("Text", "generate", spiking, prompt, temperature, top_k, top_p, min_p, repeat, seed, 40)
    with llama(spiking) as llm:
        got = llm.create_completion(prompt.read_text(encoding="utf-8"), max_tokens=40, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                                    repeat_penalty=repeat, seed=seed)
    assert said["text"] == said["whole"] == got["choices"][0]["text"]
    assert said["counts"] == [got["usage"]["prompt_tokens"]] * 2 + [got["usage"]["completion_tokens"]]
    assert said["reason"] == {"stop": "STOP", "length": "LENGTH"}[got["choices"][0]["finish_reason"]]
    assert said["times"] is True and said["empty"] is False and said["pieces"] > 1


@pytest.mark.parametrize("n_ctx", [0, 12, 2**30])
def test_an_answer_without_a_limit_ends_where_pythons_does(jvm, spiking, n_ctx):
    prompts = [0, 1, 28671, 28672, 2**30 - 5]
    said = jvm.all("Text", "limits", spiking, n_ctx, *prompts)
    with llama(spiking, n_ctx=n_ctx) as llm:
        assert [v for k, v in said if k == "limit"] == [llm.default_max_tokens(n) for n in prompts]
        if n_ctx == 12:
            answer = llm([1, 2, 3], max_tokens=None, temperature=0)
            reason = {"stop": "STOP", "length": "LENGTH"}[answer["choices"][0]["finish_reason"]]
            assert dict(said)["ended"] == f"{answer['usage']['completion_tokens']} {reason}"


def test_a_stop_string_ends_the_answer_before_it(jvm, spiking, prompt):
    with llama(spiking) as llm:
        whole = greedy(llm, prompt.read_text(encoding="utf-8"), 60)
    stop = whole[len(whole) // 2:len(whole) // 2 + 4]
    said = jvm("Text", "generate", spiking, prompt, 0, 40, 0.95, 0.05, 1, 1, 60, stop, "never said")
    assert said["text"] == whole[:whole.index(stop)] and said["reason"] == "STOP"


@pytest.mark.parametrize("data, stops, want", [
    ("日本🙂é".encode(), [], "日本🙂é"),
    ("日本🙂".encode()[:-1], [], "日本"),                    # half a character at the end
    (b"a\xff\xfeb\xe6\x97z", [], "abz"),                     # no UTF-8
    ("xx STOP yy".encode(), ["STOP"], "xx "),
    ("xx STO".encode(), ["STOP"], "xx STO"),                 # the beginning of a stop string that does not come
    ("aab🙂c".encode(), ["b🙂", "ab🙂c"], "aa"),             # the one complete first
])
def test_a_stream_has_whole_characters_and_no_part_of_a_stop(jvm, data, stops, want):
    assert jvm.list("text", "Text", "stream", data.hex(), *stops) == [want] * 4
    from spikingbrain_cpp.completion import TextStream
    stream = TextStream(stops)
    text = "".join(stream.push(data[i:i + 1]) for i in range(len(data)) if not stream.stopped)
    assert text + stream.finish() == want


def test_chat_prompts_are_pythons(jvm, spiking):
    said = jvm("Text", "template", spiking)
    with llama(spiking) as llm:
        messages = [{"role": "system", "content": "Sé bréve."}, {"role": "user", "content": "hello \U0001F600"}]
        assert said["prompt"] == llm.apply_chat_template(messages)
        assert said["without"] == llm.apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=False)
    assert said["none"] == "IllegalArgumentException: chat: messages: got none, expected at least one"


def test_a_growing_chat_evaluates_its_new_tokens(jvm, spiking):
    said = jvm.all("Text", "chat", spiking)
    counts = [v for k, v in said if k == "counts"]
    for (n_before, _, n_said), (n_prompt, n_evaluated, _) in zip(counts, counts[1:]):
        assert n_evaluated <= n_prompt - n_before - n_said + 1  # and the last token said, which was not read yet
    said = dict(said)
    assert len(said["ids"]) >= counts[2][0]
    with llama(spiking) as llm:
        first = llm.create_chat_completion([{"role": "user", "content": "say hello"}], max_tokens=24, temperature=0)
        assert first["choices"][0]["message"]["content"] == said["one"]


def test_two_sessions_at_once_are_each_as_alone(jvm, spiking):
    said = jvm("Text", "two", spiking)
    assert said["equal"] is True and said["different"] is True


def test_calls_from_several_threads_wait_for_one_another(jvm, tiny):
    said = jvm("Text", "shared", tiny)
    assert said["grown"] in (4 * 40 + 1, 4 * 40 + 2)  # the prompt's tokens come first
    assert said["stream"].startswith("SpikingBrainException: generate: got a sequence that another call changed")
