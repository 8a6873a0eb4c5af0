#include "spk-layout.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <cstring>

size_t spk_block_size(ggml_type type) {
    switch (type) {
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q4_0: return 4*64;
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q5_0: return 5*64;
        default:             return 8*64;
    }
}

bool spk_can_interleave(ggml_type type, int64_t n, int64_t m) {
    const int64_t group = ggml_spk_group(type);
    return group > 0 && m % SPK_ROWS == 0 && n % group == 0;
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

//
// Superblocks: the codes, scales and minima of a row's, one byte each, then interleaved
//

struct k_row {
    uint8_t q[QK_K], scale[16], min[8]; // Q2_K: scale, and minimum in the high nibble
    ggml_half d[2]; // d, dmin
};

void read_scales(k_row & r, const uint8_t * s) {
    for (int b = 0; b < 4; ++b) {
        r.scale[b]     = s[b] & 63;
        r.min[b]       = s[b + 4] & 63;
        r.scale[b + 4] = (s[b + 8] & 15) | s[b] >> 6 << 4;
        r.min[b + 4]   = s[b + 8] >> 4 | s[b + 4] >> 6 << 4;
    }
}

k_row read(const block_q2_K & x) {
    k_row r;
    memcpy(r.d, (const uint8_t *) &x + sizeof(x) - sizeof(r.d), sizeof(r.d));
    memcpy(r.scale, x.scales, sizeof(r.scale));
    for (int j = 0; j < 8; ++j) {
        for (int i = 0; i < 32; ++i) {
            r.q[32*j + i] = x.qs[j/4*32 + i] >> j % 4*2 & 3;
        }
    }
    return r;
}

k_row read(const block_q3_K & x) {
    k_row r;
    r.d[0] = x.d;
    for (int i = 0; i < 16; ++i) {
        r.scale[i] = (x.scales[i % 8] >> i/8*4 & 15) | (x.scales[8 + i % 4] >> i/4*2 & 3) << 4;
    }
    for (int j = 0; j < 8; ++j) {
        for (int i = 0; i < 32; ++i) {
            r.q[32*j + i] = (x.qs[j/4*32 + i] >> j % 4*2 & 3) | (x.hmask[i] >> j & 1) << 2;
        }
    }
    return r;
}

// Q4_K, or Q5_K with its fifth bits
template <class B>
k_row read_nibbles(const B & x, const uint8_t * qh) {
    k_row r;
    memcpy(r.d, &x, sizeof(r.d));
    read_scales(r, x.scales);
    for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < 32; ++i) {
            const int bits = qh ? qh[i] >> 2*j : 0;
            r.q[64*j + i]      = (x.qs[32*j + i] & 15) | (bits & 1) << 4;
            r.q[64*j + 32 + i] = x.qs[32*j + i] >> 4   | (bits >> 1 & 1) << 4;
        }
    }
    return r;
}

k_row read(const block_q4_K & x) { return read_nibbles(x, nullptr); }
k_row read(const block_q5_K & x) { return read_nibbles(x, x.qh); }

k_row read(const block_q6_K & x) {
    k_row r;
    r.d[0] = x.d;
    memcpy(r.scale, x.scales, sizeof(r.scale));
    for (int j = 0; j < 2; ++j) {
        const uint8_t * ql = x.ql + 64*j, * qh = x.qh + 32*j;
        for (int i = 0; i < 32; ++i) {
            r.q[128*j + i]      = (ql[i] & 15)      | (qh[i] & 3) << 4;
            r.q[128*j + 32 + i] = (ql[32 + i] & 15) | (qh[i] >> 2 & 3) << 4;
            r.q[128*j + 64 + i] = ql[i] >> 4        | (qh[i] >> 4 & 3) << 4;
            r.q[128*j + 96 + i] = ql[32 + i] >> 4   | (qh[i] >> 6) << 4;
        }
    }
    return r;
}

k_row read(const block_iq4_xs & x) {
    k_row r;
    r.d[0] = x.d;
    for (int b = 0; b < SPK_SUPER; ++b) {
        r.scale[b] = (x.scales_l[b/2] >> b % 2*4 & 15) | (x.scales_h >> 2*b & 3) << 4;
        for (int i = 0; i < 16; ++i) {
            r.q[32*b + i]      = x.qs[16*b + i] & 15;
            r.q[32*b + 16 + i] = x.qs[16*b + i] >> 4;
        }
    }
    return r;
}

// two bits of each byte of 8 words: of 4i + j in bits 2j of step i
void put_two_bits(uint8_t * block, int row, const uint32_t * x, int shift) {
    for (int i = 0; i < 2; ++i) {
        uint32_t word = 0;
        for (int j = 0; j < 4; ++j) {
            word |= (x[4*i + j] >> shift & 0x03030303) << 2*j;
        }
        memcpy(step(block, i, row), &word, 4);
    }
}

// 32 codes of a row
void put_codes(uint8_t * block, int row, const uint8_t * q, int bits) {
    uint32_t x[8];
    memcpy(x, q, sizeof(x));
    if (bits < 4) {
        put_two_bits(block, row, x, 0);
    } else {
        for (int i = 0; i < 4; ++i) {
            const uint32_t two = (x[2*i] & 0x0f0f0f0f) | (x[2*i + 1] & 0x0f0f0f0f) << 4;
            memcpy(step(block, i, row), &two, 4);
        }
    }
    if (bits == 3 || bits == 5) {
        uint32_t word = 0;
        for (int i = 0; i < 8; ++i) {
            word |= (x[i] >> (bits - 1) & 0x01010101) << i;
        }
        memcpy(step(block + (bits == 3 ? 128 : 256), 0, row), &word, 4);
    }
    if (bits == 6) {
        put_two_bits(block + 256, row, x, 4);
    }
}

// bits of a code, numbers of 6 bits in pairs (none: 16 bytes)
struct k_form {
    int  bits, pairs;
    bool minima;
};

template <class B>
void pack_super(uint8_t * super, const B * blocks, size_t row_size, int n_rows, k_form form) {
    memset(super, 0, SPK_ROWS*sizeof(B));
    const int   n_d    = form.minima ? 2 : 1;
    uint8_t   * codes  = super + SPK_ROWS*(sizeof(B) - QK_K*form.bits/8);
    ggml_half * d      = (ggml_half *) super;
    uint8_t   * scales = (uint8_t *) (d + n_d*SPK_ROWS);
    uint8_t   * upper  = scales + form.pairs*SPK_ROWS;
    for (int r = 0; r < n_rows; ++r) {
        const k_row row = read(*(const B *) ((const uint8_t *) blocks + r*row_size));
        for (int i = 0; i < n_d; ++i) {
            d[i*SPK_ROWS + r] = row.d[i];
        }
        for (int j = 0; j < 16 && form.pairs == 0; ++j) {
            scales[j*SPK_ROWS + r] = row.scale[j];
        }
        for (int j = 0; j < form.pairs; ++j) {
            const uint8_t first = form.minima ? row.scale[j] : row.scale[2*j], second = form.minima ? row.min[j] : row.scale[2*j + 1];
            scales[j*SPK_ROWS + r]   = (first & 15) | (second & 15) << 4;
            upper[j/2*SPK_ROWS + r] |= (first >> 4 | second >> 4 << 2) << j % 2*4;
        }
        for (int b = 0; b < SPK_SUPER; ++b) {
            put_codes(codes + b*32*SPK_ROWS*form.bits/8, r, row.q + 32*b, form.bits);
        }
    }
}

template <class B>
void pack_supers(uint8_t * tile, const uint8_t * rows, int64_t n, size_t row_size, int n_rows, k_form form) {
    for (int64_t s = 0; s < n/QK_K; ++s) {
        pack_super(tile + s*SPK_ROWS*sizeof(B), (const B *) rows + s, row_size, n_rows, form);
    }
}

} // namespace

void spk_pack_tile(ggml_type type, uint8_t * tile, const uint8_t * rows, int64_t n, int n_rows) {
    const size_t row_size = ggml_row_size(type, n);
    switch (type) {
        case GGML_TYPE_Q2_K:   return pack_supers<block_q2_K>  (tile, rows, n, row_size, n_rows, { 2, 0, true });
        case GGML_TYPE_Q3_K:   return pack_supers<block_q3_K>  (tile, rows, n, row_size, n_rows, { 3, 8, false });
        case GGML_TYPE_Q4_K:   return pack_supers<block_q4_K>  (tile, rows, n, row_size, n_rows, { 4, 8, true });
        case GGML_TYPE_Q5_K:   return pack_supers<block_q5_K>  (tile, rows, n, row_size, n_rows, { 5, 8, true });
        case GGML_TYPE_Q6_K:   return pack_supers<block_q6_K>  (tile, rows, n, row_size, n_rows, { 6, 0, false });
        case GGML_TYPE_IQ4_XS: return pack_supers<block_iq4_xs>(tile, rows, n, row_size, n_rows, { 4, 4, false });
        default: break;
    }
    const int64_t n_block    = n/32;
    const size_t  block_size = spk_block_size(type);
    const bool    bytes      = type == GGML_TYPE_I8 || type == GGML_TYPE_Q8_0, fifth_bits = type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q5_1;
    const int     n_d        = type == GGML_TYPE_I8 ? 0 : type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_1 ? 2 : 1; // scale, minimum
    const size_t  scales     = n_d*SPK_ROWS*sizeof(ggml_half), disk = row_size/n_block, codes_at = disk - (bytes ? 32 : 16);

    if (n_rows < SPK_ROWS || fifth_bits) {
        memset(tile, 0, SPK_ROWS*row_size);
    }
    for (int64_t b = 0; b < n_block; ++b) {
        uint8_t * block = tile + spk_block_at(b, block_size, scales), * to = tile + spk_scales_at(b, n_block, block_size, scales);
        for (int r = 0; r < n_rows; ++r) {
            const uint8_t * from = rows + r*row_size + b*disk; // of all: d, minimum, fifth bits, codes, as far as they have them
            if (bytes) {
                pack_bytes(block, (const int8_t *) from + codes_at, r);
            } else {
                pack_nibbles(block, from + codes_at, r);
            }
            if (fifth_bits) {
                pack_fifth_bits(block, from + codes_at - 4, r);
            }
            for (int i = 0; i < n_d; ++i) {
                memcpy(to + (i*SPK_ROWS + r)*sizeof(ggml_half), from + i*sizeof(ggml_half), sizeof(ggml_half));
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
