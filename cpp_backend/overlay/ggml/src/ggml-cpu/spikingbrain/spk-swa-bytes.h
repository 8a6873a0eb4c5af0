#pragma once

// 4 rows of 16 bytes, turned by vectors of 16 bytes: for instruction sets that have no wider ones, or gain nothing by them.

#include "spk-isa-common.h"

typedef int16_t swa_pairs __attribute__((vector_size(16)));
typedef int32_t swa_words __attribute__((vector_size(16)));

struct swa_block { swa_bytes v[4]; };

SPK_INLINE swa_block a_four(const char * rows, int64_t stride) {
    swa_block x;
    SPK_UNROLL for (int r = 0; r < 4; ++r) {
        memcpy(&x.v[r], rows + r*stride, 16);
    }
    return x;
}

#define SWA_ZIP_BYTES(a, b, f) __builtin_shufflevector(a, b, f, f + 16, f + 1, f + 17, f + 2, f + 18, f + 3, f + 19, f + 4, f + 20, f + 5, f + 21, f + 6, f + 22, f + 7, f + 23)
#define SWA_ZIP_PAIRS(a, b, f) __builtin_shufflevector((swa_pairs) a, (swa_pairs) b, f, f + 8, f + 1, f + 9, f + 2, f + 10, f + 3, f + 11)
#define SWA_ZIP_WORDS(a, b, f) __builtin_shufflevector((swa_words) a, (swa_words) b, f, f + 4, f + 1, f + 5)

// words of 4 columns, those of the rows side by side, 64 bytes from each to the next; FLIP: as w + 128
template <bool FLIP>
SPK_INLINE void a_store_words(char * p, swa_block x) {
    SPK_UNROLL for (int r = 0; r < 4; ++r) {
        x.v[r] = FLIP ? x.v[r] ^ (int8_t) -128 : x.v[r];
    }
    const swa_words a = SWA_ZIP_WORDS(x.v[0], x.v[2], 0), b = SWA_ZIP_WORDS(x.v[1], x.v[3], 0);
    const swa_words c = SWA_ZIP_WORDS(x.v[0], x.v[2], 2), d = SWA_ZIP_WORDS(x.v[1], x.v[3], 2);
    const swa_words out[4] = { SWA_ZIP_WORDS(a, b, 0), SWA_ZIP_WORDS(a, b, 2), SWA_ZIP_WORDS(c, d, 0), SWA_ZIP_WORDS(c, d, 2) };
    SPK_UNROLL for (int i = 0; i < 4; ++i) {
        memcpy(p + 64*i, &out[i], 16);
    }
}

// 16 columns, the bytes of the rows side by side
SPK_INLINE void a_store_values(char * p, const char * rows, int64_t stride) {
    const swa_block x = a_four(rows, stride);
    const swa_bytes a = SWA_ZIP_BYTES(x.v[0], x.v[1], 0), b = SWA_ZIP_BYTES(x.v[2], x.v[3], 0);
    const swa_bytes c = SWA_ZIP_BYTES(x.v[0], x.v[1], 8), d = SWA_ZIP_BYTES(x.v[2], x.v[3], 8);
    const swa_pairs out[4] = { SWA_ZIP_PAIRS(a, b, 0), SWA_ZIP_PAIRS(a, b, 4), SWA_ZIP_PAIRS(c, d, 0), SWA_ZIP_PAIRS(c, d, 4) };
    SPK_UNROLL for (int i = 0; i < 4; ++i) {
        memcpy(p + 16*i, &out[i], 16);
    }
}
