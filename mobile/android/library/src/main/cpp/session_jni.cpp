// The native methods of org.spikingbrain.Native that are about a session.

#include "java.h"

#include <algorithm>
#include <cstring>

using namespace sb;

SB_JNI(jlong, newSession)(JNIEnv * env, jclass, jlong model, jint n_ctx, jint n_batch, jint n_ubatch, jint n_threads, jint n_threads_batch, jboolean spike_stats, jint n_seq,
    jintArray cpus) {
    return guarded(env, [&] {
        const session_options o = { (uint32_t) n_ctx, (uint32_t) n_batch, (uint32_t) n_ubatch, n_threads, n_threads_batch, spike_stats != JNI_FALSE, n_seq,
            ints(env, cpus) };
        return reinterpret_cast<jlong>(new session(model_of(model), o));
    });
}
SB_JNI(void, freeSession)(JNIEnv *, jclass, jlong handle) { delete &session_of(handle); }
SB_JNI(jintArray, limits)(JNIEnv * env, jclass, jlong handle) {
    return guarded(env, [&] { return to_java(env, std::vector<jint>{ session_of(handle).n_ctx(), session_of(handle).step() }); });
}
SB_JNI(jintArray, cpus)(JNIEnv * env, jclass, jlong handle) { return guarded(env, [&] { return to_java(env, session_of(handle).cpus()); }); }
SB_JNI(void, decode)(JNIEnv * env, jclass, jlong handle, jintArray seqs, jintArray tokens, jint from, jint n, jlong run) {
    guarded(env, [&] {
        const auto list = ints(env, seqs);
        session_of(handle).decode(list, ints(env, tokens, from, list.size()*n).data(), n, run);
    });
}
SB_JNI(void, cancel)(JNIEnv *, jclass, jlong handle, jlong run) { session_of(handle).cancel(run); }
SB_JNI(jint, lastPos)(JNIEnv * env, jclass, jlong handle, jint seq) { return guarded(env, [&] { return session_of(handle).last_pos(seq); }); }
SB_JNI(jint, logitsPos)(JNIEnv * env, jclass, jlong handle, jint seq) { return guarded(env, [&] { return session_of(handle).logits_pos(seq); }); }
SB_JNI(jboolean, removeFrom)(JNIEnv * env, jclass, jlong handle, jint seq, jint pos) {
    return guarded(env, [&] { return (jboolean) session_of(handle).remove_from(seq, pos); });
}
SB_JNI(void, clear)(JNIEnv * env, jclass, jlong handle, jint seq) { guarded(env, [&] { session_of(handle).clear(seq); }); }
SB_JNI(void, copy)(JNIEnv * env, jclass, jlong handle, jint from, jint to) { guarded(env, [&] { session_of(handle).copy(from, to); }); }

// numbers: seed, top_k, last_n; shares: top_p, min_p, typical_p, temperature, repeat, frequency, presence; grammar: its text and root, then the
// patterns that trigger it, null: none; lists: its preserved, trigger and prefill tokens
SB_JNI(void, newChain)(JNIEnv * env, jclass, jlong handle, jint seq, jintArray numbers, jfloatArray shares, jintArray bias_tokens, jfloatArray biases,
    jobjectArray grammar, jobjectArray lists, jboolean lazy) {
    guarded(env, [&] {
        const auto n = ints(env, numbers);
        const auto f = floats(env, shares);
        sampling_options o = { (uint32_t) n.at(0), n.at(1), n.at(2), f.at(0), f.at(1), f.at(2), f.at(3), f.at(4), f.at(5), f.at(6), {} };
        const auto ids  = ints(env, bias_tokens);
        const auto more = floats(env, biases);
        for (size_t i = 0; i < ids.size(); ++i) {
            o.bias.push_back({ ids[i], more.at(i) });
        }
        if (!grammar) {
            session_of(handle).new_chain(seq, o, nullptr);
            return;
        }
        const auto text = texts(env, grammar);
        const auto list = [&](jsize i) { return ints(env, element<jintArray>(env, lists, i)); };
        const grammar_options g = { text.at(0), text.at(1), lazy != JNI_FALSE, { text.begin() + 2, text.end() }, list(1), list(0), list(2) };
        session_of(handle).new_chain(seq, o, &g);
    });
}
SB_JNI(void, accept)(JNIEnv * env, jclass, jlong handle, jint seq, jintArray tokens) {
    guarded(env, [&] { session_of(handle).accept(seq, ints(env, tokens)); });
}
SB_JNI(jint, chooseToken)(JNIEnv * env, jclass, jlong handle, jint seq) { return guarded(env, [&] { return session_of(handle).choose_token(seq); }); }
// {int[]: the likeliest tokens; float[]: log probabilities of the token, then of those}
SB_JNI(jobjectArray, logprobs)(JNIEnv * env, jclass, jlong handle, jint seq, jint token, jint n_top) {
    return guarded(env, [&] {
        const auto found = session_of(handle).logprobs(seq, token, n_top);
        std::vector<jint>   ids;
        std::vector<jfloat> logprobs = { found.logprob };
        for (const auto & [id, logprob] : found.top) {
            ids.push_back(id);
            logprobs.push_back(logprob);
        }
        return to_java(env, std::vector<jobject>{ to_java(env, ids), to_java(env, logprobs) });
    });
}

SB_JNI(jbyteArray, fingerprint)(JNIEnv * env, jclass, jlong handle) { return guarded(env, [&] { return to_java(env, session_of(handle).fingerprint()); }); }
SB_JNI(jlong, stateBytes)(JNIEnv * env, jclass, jlong handle) { return guarded(env, [&] { return (jlong) session_of(handle).state_bytes(); }); }
SB_JNI(jlong, stateSize)(JNIEnv * env, jclass, jlong handle) { return guarded(env, [&] { return (jlong) session_of(handle).state_size(); }); }
SB_JNI(void, getState)(JNIEnv * env, jclass, jlong handle, jobject memory, jlong at, jlong size) {
    guarded(env, [&] { session_of(handle).get_state(memory_at(env, memory, at, size), size); });
}
SB_JNI(void, setState)(JNIEnv * env, jclass, jlong handle, jobject memory, jlong at, jlong size) {
    guarded(env, [&] { session_of(handle).set_state(memory_at(env, memory, at, size), size); });
}
SB_JNI(void, getLogits)(JNIEnv * env, jclass, jlong handle, jobject memory, jlong at, jlong size) {
    guarded(env, [&] {
        const auto & row = session_of(handle).logits();
        memcpy(memory_at(env, memory, at, size), row.data(), std::min<size_t>(size, row.size()*sizeof(float)));
    });
}
SB_JNI(void, setLogits)(JNIEnv * env, jclass, jlong handle, jobject memory, jlong at, jlong size, jint pos) {
    guarded(env, [&] {
        std::vector<float> row(size/sizeof(float)); // the bytes may lie anywhere
        memcpy(row.data(), memory_at(env, memory, at, size), row.size()*sizeof(float));
        session_of(handle).set_logits(row.data(), row.size(), pos);
    });
}

SB_JNI(jobjectArray, spikeStats)(JNIEnv * env, jclass, jlong handle) {
    return guarded(env, [&] {
        const auto & inputs = session_of(handle).spikes().inputs();
        jobjectArray out = ok(env->NewObjectArray(2*inputs.size(), ok(env->FindClass("java/lang/Object")), nullptr));
        jsize i = 0;
        for (const auto & [name, in] : inputs) {
            std::string names = name;
            for (const auto & weight : in.weights) {
                names += '\n' + weight;
            }
            std::vector<jlong> numbers = { in.n, in.n_tokens, in.n_refused, in.n_over, in.over_spikes, in.largest };
            numbers.insert(numbers.end(), in.bins.begin(), in.bins.end());
            numbers.resize(6 + spike_collector::N_BINS); // an input that was only asked about has none
            for (jobject one : { (jobject) to_java(env, names), (jobject) to_java(env, numbers) }) {
                env->SetObjectArrayElement(out, i++, one);
                env->DeleteLocalRef(one);
            }
        }
        return out;
    });
}
SB_JNI(void, resetSpikeStats)(JNIEnv * env, jclass, jlong handle) { guarded(env, [&] { session_of(handle).spikes().reset(); }); }
