// The native methods of org.spikingbrain.Native: conversions alone. No C++ exception leaves a method: each becomes a Java exception.

#include "session.h"

#include "llama-spikingbrain.h"
#include "log.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <jni.h>

using namespace sb;

#define SB_JNI(type, name) extern "C" JNIEXPORT type JNICALL Java_org_spikingbrain_Native_##name

namespace {

struct pending {}; // a Java exception is under way

template <typename T> T * ok(T * object) { // of a call that returns null with an exception
    if (!object) {
        throw pending();
    }
    return object;
}

std::string bytes(JNIEnv * env, jbyteArray array) {
    std::string out(ok(array) ? env->GetArrayLength(array) : 0, '\0');
    env->GetByteArrayRegion(array, 0, out.size(), reinterpret_cast<jbyte *>(&out[0]));
    return out;
}

jbyteArray to_java(JNIEnv * env, const std::string & s) {
    jbyteArray out = ok(env->NewByteArray(s.size()));
    env->SetByteArrayRegion(out, 0, s.size(), reinterpret_cast<const jbyte *>(s.data()));
    return out;
}

jobjectArray to_java(JNIEnv * env, const std::vector<std::string> & list) {
    jobjectArray out = ok(env->NewObjectArray(list.size(), ok(env->FindClass("[B")), nullptr));
    for (size_t i = 0; i < list.size(); ++i) {
        jbyteArray one = to_java(env, list[i]);
        env->SetObjectArrayElement(out, i, one);
        env->DeleteLocalRef(one);
    }
    return out;
}

jlongArray to_java(JNIEnv * env, const std::vector<jlong> & list) {
    jlongArray out = ok(env->NewLongArray(list.size()));
    env->SetLongArrayRegion(out, 0, list.size(), list.data());
    return out;
}

jintArray to_java(JNIEnv * env, const std::vector<jint> & list) {
    jintArray out = ok(env->NewIntArray(list.size()));
    env->SetIntArrayRegion(out, 0, list.size(), list.data());
    return out;
}

std::vector<llama_token> tokens_of(JNIEnv * env, jintArray array, jint from, jint n) {
    std::vector<llama_token> out(n);
    env->GetIntArrayRegion(array, from, n, out.data());
    if (env->ExceptionCheck()) {
        throw pending();
    }
    return out;
}

// [at, at + size) of a direct buffer
uint8_t * memory_at(JNIEnv * env, jobject buffer, jlong at, jlong size) {
    auto * base = static_cast<uint8_t *>(env->GetDirectBufferAddress(buffer));
    if (!base || at < 0 || size < 0 || at > env->GetDirectBufferCapacity(buffer) - size) {
        throw std::invalid_argument("memory: got a range outside the buffer, expected one inside");
    }
    return base + at;
}

// the message through String(byte[], "UTF-8"), since ThrowNew wants another encoding
void throw_java(JNIEnv * env, const char * name, const char * message) try {
    jclass string = ok(env->FindClass("java/lang/String"));
    jobject text = ok(env->NewObject(string, ok(env->GetMethodID(string, "<init>", "([BLjava/lang/String;)V")),
        to_java(env, message), ok(env->NewStringUTF("UTF-8"))));
    jclass type = ok(env->FindClass(name));
    env->Throw(static_cast<jthrowable>(ok(env->NewObject(type, ok(env->GetMethodID(type, "<init>", "(Ljava/lang/String;)V")), text))));
} catch (const pending &) {
}

template <typename F> auto guarded(JNIEnv * env, F && f) -> decltype(f()) {
    try {
        return f();
    } catch (const pending &) {
    } catch (const cancelled & e) {
        throw_java(env, "org/spikingbrain/CancelledException", e.what());
    } catch (const std::invalid_argument & e) {
        throw_java(env, "java/lang/IllegalArgumentException", e.what());
    } catch (const std::bad_alloc &) {
        throw_java(env, "org/spikingbrain/SpikingBrainException", "memory: got none, expected some; close something, or take a smaller model or n_ubatch");
    } catch (const std::exception & e) {
        throw_java(env, "org/spikingbrain/SpikingBrainException", e.what());
    } catch (...) {
        throw_java(env, "org/spikingbrain/SpikingBrainException", "native: got an unknown exception, expected none");
    }
    return decltype(f())();
}

std::unique_ptr<model_file> file_of(JNIEnv * env, jbyteArray path, jint fd) {
    return path ? std::make_unique<model_file>(bytes(env, path)) : std::make_unique<model_file>(fd);
}

llama_model *       model_of(jlong handle)   { return reinterpret_cast<llama_model *>(handle); }
session &           session_of(jlong handle) { return *reinterpret_cast<session *>(handle); }
const llama_vocab * vocab_of(jlong handle)   { return llama_model_get_vocab(model_of(handle)); }

std::string own_folder() {
    Dl_info info;
    const std::string path = dladdr(reinterpret_cast<void *>(&own_folder), &info) && info.dli_fname ? info.dli_fname : "";
    return path.substr(0, path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
}

} // namespace

// --- before a model is loaded -------------------------------------------------------------------------------------------

SB_JNI(void, init)(JNIEnv * env, jclass, jbyteArray folder) {
    guarded(env, [&] {
        common_log_set_verbosity_thold(-1); // of llama-common alone: it prints by itself what its exceptions say
        const auto given = bytes(env, folder);
        init(given.empty() ? own_folder() : given);
    });
}
SB_JNI(jbyteArray, systemInfo)(JNIEnv * env, jclass) { return guarded(env, [&] { return to_java(env, std::string(llama_print_system_info())); }); }
SB_JNI(jbyteArray, spikeIsa)(JNIEnv * env, jclass) { return guarded(env, [&] { return to_java(env, spike_isa()); }); }

SB_JNI(jlongArray, measure)(JNIEnv * env, jclass, jbyteArray path, jint fd, jint spike, jdouble k, jint n_ctx, jint n_batch, jint n_ubatch, jint n_rows) {
    return guarded(env, [&] {
        auto params = context_params({ (uint32_t) n_ctx, (uint32_t) n_batch, (uint32_t) n_ubatch, 1, 1, false });
        params.n_outputs_max = n_rows;
        const auto use = measure(*file_of(env, path, fd), spike_overrides(spike, k), params);
        return to_java(env, std::vector<jlong>{ (jlong) use.model, (jlong) use.state, (jlong) use.compute, (jlong) use.n_vocab, (jlong) use.cache });
    });
}

SB_JNI(jobject, allocate)(JNIEnv * env, jclass, jlong size) {
    return guarded(env, [&] {
        void * data = size >= 0 && size <= INT32_MAX ? malloc(size + 1) : nullptr;
        if (!data) {
            throw std::runtime_error("memory: got none for " + std::to_string(size) + " bytes, expected some; close something");
        }
        return ok(env->NewDirectByteBuffer(data, size));
    });
}
SB_JNI(void, free)(JNIEnv * env, jclass, jobject memory) { free(env->GetDirectBufferAddress(memory)); }

// --- a model -------------------------------------------------------------------------------------------------------------

SB_JNI(jlong, loadModel)(JNIEnv * env, jclass, jbyteArray path, jint fd, jint spike, jdouble k, jboolean use_mmap) {
    return guarded(env, [&] { return reinterpret_cast<jlong>(load_model(*file_of(env, path, fd), spike_overrides(spike, k), use_mmap)); });
}
SB_JNI(void, freeModel)(JNIEnv *, jclass, jlong model) { llama_model_free(model_of(model)); }

SB_JNI(jobjectArray, metadata)(JNIEnv * env, jclass, jlong model) {
    return guarded(env, [&] {
        std::vector<std::string> flat;
        for (const auto & [key, value] : metadata(model_of(model))) {
            flat.insert(flat.end(), { key, value });
        }
        return to_java(env, flat);
    });
}
SB_JNI(jbyteArray, description)(JNIEnv * env, jclass, jlong model) { return guarded(env, [&] { return to_java(env, description(model_of(model))); }); }

SB_JNI(jlongArray, figures)(JNIEnv * env, jclass, jlong model) {
    return guarded(env, [&] {
        const auto * m = model_of(model);
        const auto * v = vocab_of(model);
        return to_java(env, std::vector<jlong>{ llama_vocab_n_tokens(v), (jlong) llama_model_n_params(m), (jlong) llama_model_size(m), llama_model_n_ctx_train(m),
            llama_vocab_bos(v), llama_vocab_eos(v) });
    });
}
SB_JNI(jint, defaultLimit)(JNIEnv * env, jclass, jlong model, jint n_prompt) { return guarded(env, [&] { return (jint) llama_spikingbrain_default_limit(model_of(model), n_prompt); }); }
SB_JNI(jobjectArray, addedTokens)(JNIEnv * env, jclass, jlong model, jboolean control) {
    return guarded(env, [&] {
        std::vector<std::string> found;
        for (const auto & t : added_tokens(vocab_of(model))) {
            if (t.control == (control != JNI_FALSE)) {
                found.push_back(t.text);
            }
        }
        return to_java(env, found);
    });
}
SB_JNI(jbyteArray, vocabDigestInput)(JNIEnv * env, jclass, jlong model) { return guarded(env, [&] { return to_java(env, vocab_digest_input(vocab_of(model))); }); }

SB_JNI(jintArray, tokenize)(JNIEnv * env, jclass, jlong model, jbyteArray text, jboolean add_special, jboolean parse_special) {
    return guarded(env, [&] { return to_java(env, tokenize(vocab_of(model), bytes(env, text), add_special, parse_special)); });
}
SB_JNI(jbyteArray, piece)(JNIEnv * env, jclass, jlong model, jint token, jboolean special) {
    return guarded(env, [&] { return to_java(env, token_to_piece(vocab_of(model), token, special)); });
}
SB_JNI(jboolean, isEog)(JNIEnv * env, jclass, jlong model, jint token) {
    return guarded(env, [&] { return (jboolean) llama_vocab_is_eog(vocab_of(model), checked(vocab_of(model), token)); });
}
SB_JNI(jboolean, isControl)(JNIEnv * env, jclass, jlong model, jint token) {
    return guarded(env, [&] { return (jboolean) is_control(vocab_of(model), token); });
}
SB_JNI(jobjectArray, applyChatTemplate)(JNIEnv * env, jclass, jlong model, jobjectArray messages, jboolean add_generation_prompt) {
    return guarded(env, [&] {
        std::vector<std::string> flat;
        for (jsize i = 0; i < env->GetArrayLength(messages); ++i) {
            auto one = static_cast<jbyteArray>(env->GetObjectArrayElement(messages, i));
            flat.push_back(bytes(env, one));
            env->DeleteLocalRef(one);
        }
        return to_java(env, apply_chat_template(model_of(model), flat, add_generation_prompt));
    });
}

// --- a session -----------------------------------------------------------------------------------------------------------

SB_JNI(jlong, newSession)(JNIEnv * env, jclass, jlong model, jint n_ctx, jint n_batch, jint n_ubatch, jint n_threads, jint n_threads_batch, jboolean spike_stats) {
    return guarded(env, [&] {
        const session_options o = { (uint32_t) n_ctx, (uint32_t) n_batch, (uint32_t) n_ubatch, n_threads, n_threads_batch, spike_stats != JNI_FALSE };
        return reinterpret_cast<jlong>(new session(model_of(model), o));
    });
}
SB_JNI(void, freeSession)(JNIEnv *, jclass, jlong handle) { delete &session_of(handle); }
SB_JNI(jintArray, limits)(JNIEnv * env, jclass, jlong handle) {
    return guarded(env, [&] { return to_java(env, std::vector<jint>{ session_of(handle).n_ctx(), session_of(handle).step() }); });
}
SB_JNI(void, decode)(JNIEnv * env, jclass, jlong handle, jintArray tokens, jint from, jint n, jint pos, jlong run) {
    guarded(env, [&] { session_of(handle).decode(tokens_of(env, tokens, from, n).data(), n, pos, run); });
}
SB_JNI(void, cancel)(JNIEnv *, jclass, jlong handle, jlong run) { session_of(handle).cancel(run); }
SB_JNI(jint, lastPos)(JNIEnv *, jclass, jlong handle) { return session_of(handle).last_pos(); }
SB_JNI(jint, logitsPos)(JNIEnv *, jclass, jlong handle) { return session_of(handle).logits_pos(); }
SB_JNI(jboolean, removeFrom)(JNIEnv * env, jclass, jlong handle, jint pos) { return guarded(env, [&] { return (jboolean) session_of(handle).remove_from(pos); }); }
SB_JNI(void, clear)(JNIEnv * env, jclass, jlong handle) { guarded(env, [&] { session_of(handle).clear(); }); }

SB_JNI(void, newChain)(JNIEnv * env, jclass, jlong handle, jint seed, jint top_k, jfloat top_p, jfloat min_p, jfloat temperature, jfloat repeat_penalty, jint last_n) {
    guarded(env, [&] { session_of(handle).new_chain({ (uint32_t) seed, top_k, top_p, min_p, temperature, repeat_penalty, last_n }); });
}
SB_JNI(void, accept)(JNIEnv * env, jclass, jlong handle, jintArray tokens) {
    guarded(env, [&] { session_of(handle).accept(tokens_of(env, tokens, 0, env->GetArrayLength(tokens))); });
}
SB_JNI(jint, chooseToken)(JNIEnv * env, jclass, jlong handle) { return guarded(env, [&] { return session_of(handle).choose_token(); }); }

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
