// The native methods of org.spikingbrain.Native that are about files, models and their vocabulary: conversions alone, as in the other *_jni.cpp.

#include "java.h"

#include "llama-spikingbrain.h"
#include "log.h"

#include <cstdlib>
#include <dlfcn.h>

using namespace sb;

namespace {

std::unique_ptr<model_file> file_of(JNIEnv * env, jbyteArray path, jint fd) {
    return path ? std::make_unique<model_file>(bytes(env, path)) : std::make_unique<model_file>(fd);
}

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
SB_JNI(void, free)(JNIEnv * env, jclass, jobject memory) { guarded(env, [&] { free(memory_at(env, memory, 0, 0)); }); }

// --- a model -------------------------------------------------------------------------------------------------------------

// progress: a LoadProgress, null: none. What it throws ends the load and reaches the caller
SB_JNI(jlong, loadModel)(JNIEnv * env, jclass, jbyteArray path, jint fd, jint spike, jdouble k, jboolean use_mmap, jobject progress) {
    return guarded(env, [&] {
        std::function<bool(float)> tell;
        if (progress) {
            const auto method = ok(env->GetMethodID(ok(env->GetObjectClass(progress)), "onProgress", "(D)Z"));
            tell = [=](float share) { return env->CallBooleanMethod(progress, method, (jdouble) share) && !env->ExceptionCheck(); };
        }
        try {
            return reinterpret_cast<jlong>(load_model(*file_of(env, path, fd), spike_overrides(spike, k), use_mmap, tell));
        } catch (const cancelled &) {
            check_pending(env);
            throw;
        }
    });
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
