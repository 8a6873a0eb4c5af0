#include "java.h"

namespace sb {

void check_pending(JNIEnv * env) {
    if (env->ExceptionCheck()) {
        throw pending();
    }
}

template <typename T> static T * given(T * array) {
    if (!array) {
        throw std::invalid_argument("native: got a null array, expected one");
    }
    return array;
}

std::string bytes(JNIEnv * env, jbyteArray array) {
    std::string out(env->GetArrayLength(given(array)), '\0');
    env->GetByteArrayRegion(array, 0, out.size(), reinterpret_cast<jbyte *>(&out[0]));
    return out;
}

std::vector<std::string> texts(JNIEnv * env, jobjectArray array) {
    std::vector<std::string> out(env->GetArrayLength(given(array)));
    for (size_t i = 0; i < out.size(); ++i) {
        if (auto one = element<jbyteArray>(env, array, i)) {
            out[i] = bytes(env, one);
            env->DeleteLocalRef(one);
        }
    }
    return out;
}

std::vector<int32_t> ints(JNIEnv * env, jintArray array) { return ints(env, array, 0, env->GetArrayLength(given(array))); }

std::vector<int32_t> ints(JNIEnv * env, jintArray array, jint from, jint n) {
    std::vector<int32_t> out(n);
    env->GetIntArrayRegion(given(array), from, n, out.data());
    check_pending(env);
    return out;
}

std::vector<float> floats(JNIEnv * env, jfloatArray array) {
    std::vector<float> out(env->GetArrayLength(given(array)));
    env->GetFloatArrayRegion(array, 0, out.size(), out.data());
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

jfloatArray to_java(JNIEnv * env, const std::vector<jfloat> & list) {
    jfloatArray out = ok(env->NewFloatArray(list.size()));
    env->SetFloatArrayRegion(out, 0, list.size(), list.data());
    return out;
}

jobjectArray to_java(JNIEnv * env, const std::vector<jobject> & list) {
    jobjectArray out = ok(env->NewObjectArray(list.size(), ok(env->FindClass("java/lang/Object")), nullptr));
    for (size_t i = 0; i < list.size(); ++i) {
        env->SetObjectArrayElement(out, i, list[i]);
        env->DeleteLocalRef(list[i]);
    }
    return out;
}

uint8_t * memory_at(JNIEnv * env, jobject buffer, jlong at, jlong size) {
    auto * base = static_cast<uint8_t *>(buffer ? env->GetDirectBufferAddress(buffer) : nullptr);
    if (!base || at < 0 || size < 0 || at > env->GetDirectBufferCapacity(buffer) - size) {
        throw std::invalid_argument("memory: got a range outside the buffer, expected one inside");
    }
    return base + at;
}

// the message through String(byte[], "UTF-8"), since ThrowNew wants another encoding
void throw_java(JNIEnv * env, const char * name, const char * message) try {
    jclass string = ok(env->FindClass("java/lang/String"));
    jobject text = ok(env->NewObject(string, ok(env->GetMethodID(string, "<init>", "([BLjava/lang/String;)V")),
        to_java(env, std::string(message)), ok(env->NewStringUTF("UTF-8"))));
    jclass type = ok(env->FindClass(name));
    env->Throw(static_cast<jthrowable>(ok(env->NewObject(type, ok(env->GetMethodID(type, "<init>", "(Ljava/lang/String;)V")), text))));
} catch (const pending &) {
}

} // namespace sb
