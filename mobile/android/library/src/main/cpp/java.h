// Between JNI and C++: text crosses as UTF-8 bytes, every C++ exception becomes a Java exception. What takes an array refuses null by an
// exception of its own, so that none is forgotten; optional ones are looked at before.
#pragma once

#include "session.h"

#include <cstdint>
#include <jni.h>
#include <string>
#include <vector>

#define SB_JNI(type, name) extern "C" JNIEXPORT type JNICALL Java_org_spikingbrain_Native_##name

namespace sb {

struct pending {}; // a Java exception is under way

template <typename T> T * ok(T * object) { // of a call that returns null with an exception
    if (!object) {
        throw pending();
    }
    return object;
}

void check_pending(JNIEnv * env); // throws pending when a Java exception is under way

std::string              bytes (JNIEnv * env, jbyteArray array);
std::vector<std::string> texts (JNIEnv * env, jobjectArray array); // byte[][]; of null elements ""
std::vector<int32_t>     ints  (JNIEnv * env, jintArray array);
std::vector<int32_t>     ints  (JNIEnv * env, jintArray array, jint from, jint n);
std::vector<float>       floats(JNIEnv * env, jfloatArray array);
template <typename T> T  element(JNIEnv * env, jobjectArray array, jsize i) { return static_cast<T>(env->GetObjectArrayElement(array, i)); }

jbyteArray   to_java(JNIEnv * env, const std::string & s);
jobjectArray to_java(JNIEnv * env, const std::vector<std::string> & list);
jlongArray   to_java(JNIEnv * env, const std::vector<jlong> & list);
jintArray    to_java(JNIEnv * env, const std::vector<jint> & list);
jfloatArray  to_java(JNIEnv * env, const std::vector<jfloat> & list);
jobjectArray to_java(JNIEnv * env, const std::vector<jobject> & list); // Object[]

// [at, at + size) of a direct buffer
uint8_t * memory_at(JNIEnv * env, jobject buffer, jlong at, jlong size);

void throw_java(JNIEnv * env, const char * name, const char * message);

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

inline llama_model *       model_of(jlong handle)   { return reinterpret_cast<llama_model *>(handle); }
inline session &           session_of(jlong handle) { return *reinterpret_cast<session *>(handle); }
inline const llama_vocab * vocab_of(jlong handle)   { return llama_model_get_vocab(model_of(handle)); }

} // namespace sb
