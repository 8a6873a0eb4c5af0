#include "spk-isa.h"

#include <cstdlib>
#include <cstring>

#ifdef __x86_64__
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1 << 13)
#endif
#endif

#if defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

// Asked of the processor itself: not every compiler's runtime library knows the answer of __builtin_cpu_supports (zig's says no to all).
struct x86_cpu {
    bool amd = false, avx2 = false, avxvnni = false, avx512 = false; // with what else their kernels need, and an operating system that keeps the registers

    x86_cpu() {
#ifdef __x86_64__
        uint32_t a, b, c, d;
        if (!__get_cpuid(0, &a, &b, &c, &d)) {
            return;
        }
        amd = b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;

        const uint32_t FMA = 1 << 12, OSXSAVE = 1 << 27, F16C = 1 << 29; // leaf 1, ecx
        if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (FMA | OSXSAVE | F16C)) != (FMA | OSXSAVE | F16C)) {
            return;
        }
        const uint32_t YMM = 0x06; // XCR0
#ifdef __APPLE__
        const uint32_t ZMM = YMM; // macOS says that it keeps the others only once a thread has used them
#else
        const uint32_t ZMM = 0xe6;
#endif
        uint32_t kept;
        asm volatile("xgetbv" : "=a" (kept) : "c" (0) : "edx");

        const uint32_t AVX2 = 1 << 5, F = 1 << 16, DQ = 1 << 17, BW = 1 << 30, VL = 1u << 31; // leaf 7, ebx
        const uint32_t VNNI = 1 << 11;                                                        // ecx
        const uint32_t AVX_VNNI = 1 << 4;                                                     // leaf 7, 1, eax
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
            return;
        }
        avx2   = (kept & YMM) == YMM && (b & AVX2);
        const bool vnni = c & VNNI;
        avx512 = (kept & ZMM) == ZMM && avx2 && (b & (F | DQ | BW | VL)) == (F | DQ | BW | VL) && vnni;
        avxvnni = avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & AVX_VNNI);
#endif
    }
};

// best first; NULL entries belong to another processor family, or this CPU lacks them

#if defined(__aarch64__) && defined(__APPLE__)
static bool apple_has(const char * feature) { // such as hw.optional.arm.FEAT_I8MM; an unknown name is a feature that is not there
    int    value = 0;
    size_t size  = sizeof(value);
    return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

static const spk_isa * usable_dotprod() {
#if defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) {
        return spk_isa_dotprod();
    }
#elif defined(__aarch64__) && defined(__APPLE__)
    if (apple_has("hw.optional.arm.FEAT_DotProd")) {
        return spk_isa_dotprod();
    }
#endif
    return nullptr;
}

static const spk_isa * usable_i8mm() {
#if defined(__aarch64__) && defined(__linux__)
    if (usable_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM)) { // single tokens use the dot product
        return spk_isa_i8mm();
    }
#elif defined(__aarch64__) && defined(__APPLE__)
    if (usable_dotprod() && apple_has("hw.optional.arm.FEAT_I8MM")) {
        return spk_isa_i8mm();
    }
#endif
    return nullptr;
}

static const spk_isa & pick() {
    const x86_cpu x86;
    const spk_isa * const usable[] = { x86.amd && x86.avx512 ? spk_isa_zen4() : nullptr, x86.avx512 ? spk_isa_avx512() : nullptr, x86.avxvnni ? spk_isa_avxvnni() : nullptr,
                                       x86.avx2 ? spk_isa_avx2() : nullptr, usable_i8mm(), usable_dotprod(), spk_isa_generic() };

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
        GGML_LOG_WARN("spikingbrain: SPIKINGBRAIN_ISA: got %s, expected one that this CPU has (zen4, avx512, avxvnni, avx2, i8mm, dotprod, generic); using %s\n", wanted, best->name);
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

static bool has_kernels(ggml_type type) {
    return &spk_get_isa() != spk_isa_generic() && ggml_spk_group(type) > 0;
}

void * ggml_spikingbrain_proc_address(const char * name) {
    return strcmp(name, "ggml_spk_isa") == 0 ? (void *) isa_name : strcmp(name, "ggml_spk_has_kernels") == 0 ? (void *) has_kernels : nullptr;
}
