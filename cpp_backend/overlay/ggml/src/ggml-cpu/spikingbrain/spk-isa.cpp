#include "spk-isa.h"

#include <cstdlib>
#include <cstring>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1 << 13)
#endif
#endif

// best first; NULL entries belong to another processor family, or this CPU lacks them

static const spk_isa * usable_avx512() {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
        return spk_isa_avx512();
    }
#endif
    return nullptr;
}

static const spk_isa * usable_zen4() {
#ifdef __x86_64__
    if (__builtin_cpu_is("amd") && usable_avx512()) {
        return spk_isa_zen4();
    }
#endif
    return nullptr;
}

static const spk_isa * usable_avx2() {
#ifdef __x86_64__
    // every CPU with AVX2 has F16C, which gcc 12 cannot ask for
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return spk_isa_avx2();
    }
#endif
    return nullptr;
}

static const spk_isa * usable_dotprod() {
#if defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) {
        return spk_isa_dotprod();
    }
#elif defined(__aarch64__) && defined(__APPLE__)
    return spk_isa_dotprod();
#endif
    return nullptr;
}

static const spk_isa * usable_i8mm() {
#if defined(__aarch64__) && defined(__linux__)
    if (usable_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM)) { // single tokens use the dot product
        return spk_isa_i8mm();
    }
#endif
    return nullptr;
}

static const spk_isa & pick() {
    const spk_isa * const usable[] = { usable_zen4(), usable_avx512(), usable_avx2(), usable_i8mm(), usable_dotprod(), spk_isa_generic() };

    const char * wanted = getenv("SPIKINGBRAIN_ISA");
    const spk_isa * best = nullptr;
    for (const spk_isa * isa : usable) {
        if (isa && wanted && strcmp(isa->name, wanted) == 0) {
            return *isa;
        }
        if (isa && !best) {
            best = isa;
        }
    }
    if (wanted) {
        GGML_LOG_WARN("spikingbrain: SPIKINGBRAIN_ISA: got %s, expected one that this CPU has (zen4, avx512, avx2, i8mm, dotprod, generic); using %s\n", wanted, best->name);
    }
    return *best;
}

const spk_isa & spk_get_isa() {
    static const spk_isa & isa = pick();
    return isa;
}

static const char * isa_name() {
    return spk_get_isa().name;
}

void * ggml_spikingbrain_proc_address(const char * name) {
    return strcmp(name, "ggml_spk_isa") == 0 ? (void *) isa_name : nullptr;
}
