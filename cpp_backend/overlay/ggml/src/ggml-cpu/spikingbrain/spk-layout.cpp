#include "spk-layout.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <cstring>

size_t spk_block_size(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return 4*64;
        case GGML_TYPE_Q5_0: return 5*64;
        default:             return 8*64;
    }
}

bool spk_can_interleave(ggml_type type, int64_t n, int64_t m) {
    switch (type) {
        case GGML_TYPE_I8:   return m % SPK_ROWS == 0 && n % 128 == 0;
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q4_0: return m % SPK_ROWS == 0 && n % 32 == 0;
        default:             return false;
    }
}

namespace {

uint8_t * step(uint8_t * block, int i, int row) {
    return block + i*64 + row*4;
}

// 16 bytes that hold columns 0..15 in their low and 16..31 in their high nibbles
void pack_nibbles(uint8_t * block, const uint8_t * qs, int row) {
    for (int i = 0; i < 2; ++i) {
        uint64_t q;
        memcpy(&q, qs + 8*i, 8);
        const uint64_t lo = q & 0x0f0f0f0f0f0f0f0full, hi = q >> 4 & 0x0f0f0f0f0f0f0f0full;
        const uint32_t pair_lo = (uint32_t) (lo | lo >> 28);
        const uint32_t pair_hi = (uint32_t) (hi | hi >> 28);
        memcpy(step(block, i,     row), &pair_lo, 4);
        memcpy(step(block, i + 2, row), &pair_hi, 4);
    }
}

void pack_bytes(uint8_t * block, const int8_t * qs, int row) {
    for (int i = 0; i < 8; ++i) {
        memcpy(step(block, i, row), qs + 4*i, 4);
    }
}

void pack_fifth_bits(uint8_t * block, const uint8_t * qh, int row) {
    uint32_t bits;
    memcpy(&bits, qh, 4);
    for (int i = 0; i < 8; ++i) {
        uint64_t mask;
        memcpy(&mask, block + 256 + 8*i, 8);
        mask |= (uint64_t) (bits >> 4*i & 15) << 4*row;
        memcpy(block + 256 + 8*i, &mask, 8);
    }
}

} // namespace

void spk_pack_tile(ggml_type type, uint8_t * tile, const uint8_t * rows, int64_t n, int n_rows) {
    const int64_t n_block    = n/32;
    const size_t  row_size   = ggml_row_size(type, n);
    const size_t  block_size = spk_block_size(type);
    const size_t  scales     = type == GGML_TYPE_I8 ? 0 : SPK_ROWS*sizeof(ggml_half);

    if (n_rows < SPK_ROWS || type == GGML_TYPE_Q5_0) {
        memset(tile, 0, SPK_ROWS*row_size);
    }
    for (int64_t b = 0; b < n_block; ++b) {
        uint8_t * block = tile + spk_block_at(b, block_size, scales);
        for (int r = 0; r < n_rows; ++r) {
            const uint8_t * row = rows + r*row_size;
            uint8_t * scale = tile + spk_scales_at(b, n_block, block_size, scales) + r*sizeof(ggml_half);
            switch (type) {
                case GGML_TYPE_I8: {
                    pack_bytes(block, (const int8_t *) row + b*32, r);
                } break;
                case GGML_TYPE_Q8_0: {
                    const block_q8_0 * q = (const block_q8_0 *) row + b;
                    pack_bytes(block, q->qs, r);
                    memcpy(scale, &q->d, sizeof(q->d));
                } break;
                case GGML_TYPE_Q5_0: {
                    const block_q5_0 * q = (const block_q5_0 *) row + b;
                    pack_nibbles(block, q->qs, r);
                    pack_fifth_bits(block, q->qh, r);
                    memcpy(scale, &q->d, sizeof(q->d));
                } break;
                case GGML_TYPE_Q4_0: {
                    const block_q4_0 * q = (const block_q4_0 *) row + b;
                    pack_nibbles(block, q->qs, r);
                    memcpy(scale, &q->d, sizeof(q->d));
                } break;
                default: GGML_ABORT("spikingbrain: interleaved layout: got type %s, expected i8, q8_0, q5_0 or q4_0", ggml_type_name(type));
            }
        }
    }
}

// where they are not packed in memory, one token reads as many scales as it multiplies them: four rows and four groups at a time
void spk_pack_scales(float * packed, const float * scales, int64_t n_groups, int n_rows) {
    typedef float four __attribute__((vector_size(16), aligned(4)));
    const int64_t whole = n_rows == SPK_ROWS ? n_groups - n_groups % 4 : 0;

    for (int r = 0; r < SPK_ROWS && whole > 0; r += 4) {
        for (int64_t g = 0; g < whole; g += 4) {
            const float * from = scales + r*n_groups + g;
            float       * to   = packed + g*SPK_ROWS + r;
            const four a = *(const four *) from, b = *(const four *) (from + n_groups), c = *(const four *) (from + 2*n_groups), d = *(const four *) (from + 3*n_groups);
            const four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            const four cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            *(four *) to                  = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            *(four *) (to + SPK_ROWS)     = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            *(four *) (to + 2*SPK_ROWS)   = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
            *(four *) (to + 3*SPK_ROWS)   = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
        }
    }
    for (int r = 0; r < SPK_ROWS; ++r) {
        for (int64_t g = whole; g < n_groups; ++g) {
            packed[g*SPK_ROWS + r] = r < n_rows ? scales[r*n_groups + g] : 0.0f;
        }
    }
}

void spk_unpack_scales(float * scales, const float * packed, int64_t n_groups, int n_rows) {
    for (int r = 0; r < n_rows; ++r) {
        for (int64_t g = 0; g < n_groups; ++g) {
            scales[r*n_groups + g] = packed[g*SPK_ROWS + r];
        }
    }
}
