// The native methods of org.spikingbrain.Native that are about grammars, chat templates and the answers to them.

#include "java.h"

#include "chat_tools.h"

#include <cstring>

using namespace sb;

SB_JNI(void, checkGrammar)(JNIEnv * env, jclass, jbyteArray text, jbyteArray root) {
    guarded(env, [&] {
        try {
            check_grammar(bytes(env, text), bytes(env, root));
        } catch (const std::invalid_argument & e) {
            if (!strstr(e.what(), "no vocab")) { // a token by its name: checked where it is used
                throw;
            }
        }
    });
}
SB_JNI(jboolean, grammarMatches)(JNIEnv * env, jclass, jbyteArray text, jbyteArray root, jbyteArray answer) {
    return guarded(env, [&] { return (jboolean) grammar_matches(bytes(env, text), bytes(env, root), bytes(env, answer)); });
}
// {GBNF, what leniency left out ...}
SB_JNI(jobjectArray, schemaToGrammar)(JNIEnv * env, jclass, jbyteArray schema, jboolean lenient) {
    return guarded(env, [&] {
        auto [text, left_out] = schema_to_grammar(bytes(env, schema), lenient);
        left_out.insert(left_out.begin(), text);
        return to_java(env, left_out);
    });
}
SB_JNI(jbyteArray, normalJson)(JNIEnv * env, jclass, jbyteArray where, jbyteArray text) {
    return guarded(env, [&] { return to_java(env, normal_json(bytes(env, where).c_str(), bytes(env, text))); });
}

// each: role, content, reasoning, id of the call that it answers, then id, name and arguments of every call
static std::vector<common_chat_msg> messages_of(JNIEnv * env, jobjectArray messages) {
    std::vector<common_chat_msg> out(env->GetArrayLength(messages));
    for (size_t i = 0; i < out.size(); ++i) {
        auto one = element<jobjectArray>(env, messages, i);
        const auto t = texts(env, one);
        env->DeleteLocalRef(one);
        out[i].role              = t.at(0);
        out[i].content           = t.at(1);
        out[i].reasoning_content = t.at(2);
        out[i].tool_call_id      = t.at(3);
        for (size_t c = 4; c + 2 < t.size(); c += 3) {
            out[i].tool_calls.push_back({ t[c + 1], t[c + 2], t[c] });
        }
    }
    return out;
}

// tools: name, description and parameters in turn; choice: 0 auto, 1 required, 2 none; pure: the answer is text.
// {byte[][] {prompt, grammar, generation prompt, parser}, byte[][] stops, byte[][] trigger patterns, int[] {lazy, format}, int[] preserved tokens,
// int[] trigger tokens, int[] tokens of the generation prompt}
SB_JNI(jobjectArray, chatPrompt)(JNIEnv * env, jclass, jlong model, jobjectArray messages, jobjectArray tools, jint choice, jboolean add_generation_prompt) {
    return guarded(env, [&] {
        if (!llama_model_chat_template(model_of(model), nullptr)) {
            throw std::runtime_error("chat template: got none in the model file, expected tokenizer.chat_template; convert the model again");
        }
        common_chat_templates_inputs in;
        in.messages = messages_of(env, messages);
        const auto t = texts(env, tools);
        for (size_t i = 0; i + 2 < t.size(); i += 3) {
            in.tools.push_back({ t[i], t[i + 1], t[i + 2] });
        }
        in.tool_choice           = choice == 0 ? COMMON_CHAT_TOOL_CHOICE_AUTO : choice == 1 ? COMMON_CHAT_TOOL_CHOICE_REQUIRED : COMMON_CHAT_TOOL_CHOICE_NONE;
        in.parallel_tool_calls   = false;
        in.add_generation_prompt = add_generation_prompt != JNI_FALSE;
        in.force_pure_content    = in.tool_choice == COMMON_CHAT_TOOL_CHOICE_NONE;
        const auto p = chat_templates(model_of(model), "", true).apply(in, false);
        return to_java(env, std::vector<jobject>{
            to_java(env, std::vector<std::string>{ p.text, p.grammar, p.generation_prompt, p.parser }), to_java(env, p.stops),
            to_java(env, p.trigger_patterns), to_java(env, std::vector<jint>{ p.lazy, p.format }), to_java(env, p.preserved), to_java(env, p.trigger_tokens),
            to_java(env, tokenize(vocab_of(model), p.generation_prompt, false, true)) });
    });
}
// the message that the text is: {content, reasoning, then id, name and arguments of every call}
SB_JNI(jobjectArray, parseAnswer)(JNIEnv * env, jclass, jint format, jbyteArray parser, jbyteArray generation_prompt, jbyteArray text, jboolean last) {
    return guarded(env, [&] {
        chat_parser reader(format, bytes(env, parser), bytes(env, generation_prompt));
        reader.push(bytes(env, text), last);
        const auto & m = reader.message();
        std::vector<std::string> out = { m.content, m.reasoning_content };
        for (const auto & call : m.tool_calls) {
            out.insert(out.end(), { call.id, call.name, call.arguments });
        }
        return to_java(env, out);
    });
}
