#pragma once

#include "spk-ops.h"

#include <cstddef>
#include <cstdint>

// Kernels that exist once per instruction set inside one library. Each spk-isa-*.cpp compiles the same sources
// (spk-kernels.h) over its own vector wrapper (spk-simd-*.h); the table is picked once, at run time.

// tokens whose activations a kernel may want side by side, and how many it is given together at most
static const int SPK_BATCH       = 8;
static const int SPK_MOST_TOKENS = 32;

// keys that window attention scores together
static const int SPK_SWA_TILE = 64;
// digits of a query's count at most: 30 bits, 6 at a time, and a carry
static const int SPK_SWA_DIGITS    = 6;
static const int SPK_SWA_MAX_COUNT = 1 << 30; // below

// 32 columns of that many rows of activations, side by side; ARM's dot products have a form of their own (spk-batch-neon.h)
struct spk_batch_block {
    int32_t bias[SPK_BATCH];
    union {
        float   scales[SPK_BATCH]; // with GGML_SPK_Q8
        int32_t in_pairs;          // of counts: 0, or they are as spk-pairs-avx512.h wants them
    };
    int8_t  s8[2][SPK_BATCH][16]; // 16 columns of each
};

// what an encoder does to a row before: RMSNorm over each `width` values, times weight
struct spk_norm {
    const float * weight; // NULL: nothing
    int64_t       width;
    float         eps;
    float       * room;   // for the row
};

// gated linear attention of one key/value head over n_tok tokens, restricted to a block of value columns
struct spk_gla_item {
    const float * q;     // {d, H, n_tok} at this group's first query head
    const float * k;     // {d, G, n_tok} at this head
    const float * v;     //                and this block's first column
    const float * w;
    float       * o;     // as q, at this block's first column
    int64_t d, stride_q, stride_k, n_tok;
    float   scale;
};

// Window attention: the query rows of one key/value head, and a tile of its keys and values. swa.cpp gives the room, the
// kernels fill it; what they keep in it is the instruction set's own business.
struct spk_swa_work {
    int64_t d, n_rows;
    float   scale;      // of q . k, whose powers of two are summed
    float   spike_k;    // 0: keys and values are floats
    // the tile: n <= SPK_SWA_TILE rows of the ring, a stride apart
    ggml_type    type_k, type_v;
    const char * keys, * values;
    int64_t      stride_k, stride_v, n;

    float   * q;        // [n_rows][spk_swa_width(d)]: float keys' queries, counts; room for whole fours of rows
    int8_t  * digits;   // [SPK_SWA_DIGITS][n_rows][spk_swa_width(d)] of the counts, of INT8 keys
    int32_t * start;    // [SPK_SWA_DIGITS][n_rows] where a sum begins
    int32_t * n_digits; // [n_rows]
    float   * unit;     // [n_rows] of q . k
    float   * k;        // [spk_swa_width(d)][SPK_SWA_TILE]
    float   * v;        // as k
    float   * k_scale;  // [SPK_SWA_TILE]
    float   * v_scale;  // [SPK_SWA_TILE]
    float   * score;    // [n_rows][SPK_SWA_TILE]; room for whole fours of rows
    float   * old;      // [n_rows]
    float   * step;     // [n_rows] of the integers that stand for probabilities
};

static inline int64_t spk_swa_width(int64_t d) { return (d + 15) & ~(int64_t) 15; }

struct spk_isa {
    const char * name;

    void (*encode_row)(void * row, const float * x, int64_t n, float k, ggml_spk_encoding encoding, const spk_norm & norm);

    int    n_tok;       // that mul_tile and mul_rows are given together at most: a multiple of SPK_BATCH
    size_t batch_block; // bytes of 32 columns of a batch

    // batch [n/32] of act [SPK_BATCH], for weights of that type; NULL where mul_tile reads rows as they are
    void (*pack_batch)(void * batch, ggml_type type, int64_t n, const ggml_spk_row * act);

    // y[t*stride_y + r] = v_th[t]*(sum over groups + corr[t*16 + r]) for r < n_rows <= 16, t < n_tok; corr may be NULL
    // mul_tile: an interleaved tile (spk-layout.h); scales as spk_pack_scales leaves them, for I8 only
    //           batch: [n_tok/SPK_BATCH], what pack_batch, where there is one, made of act; tokens beyond are read as they are
    // mul_rows: rows as they are on disk, of no K-quant; scales [n_rows][n/128], for I8 only
    void (*mul_tile)(ggml_type type, int64_t n, const uint8_t * tile, const float * scales,
                     const ggml_spk_row * act, const void * batch, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows);
    void (*mul_rows)(ggml_type type, int64_t n, const uint8_t * rows, const float * scales,
                     const ggml_spk_row * act, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows);

    // corr[r] += sum over the outliers of one row of activations: scale[r][g]*(code[r][i]*excess); operands as above
    void (*tile_outliers)(ggml_type type, int64_t n, const uint8_t * tile, const float * scales, int n_rows, const ggml_spk_row * act, double * corr);
    void (*rows_outliers)(ggml_type type, int64_t n, const uint8_t * rows, const float * scales, int n_rows, const ggml_spk_row * act, double * corr);

    // sum[t] += sum over i < n_rest: scales[column/128*stride]*value[i]*x[column*width + t], column = index[i] - first, t < width (1 or SPK_BATCH)
    // x: counts, int32, or with GGML_SPK_Q8 values, float
    void (*add_rest)(const int32_t * index, const int16_t * value, int64_t n_rest, int64_t first, const float * scales, int64_t stride,
                     const void * x, ggml_spk_encoding encoding, int width, double * sum);

    // S is the block S[d][cols], cols <= 32, rows `stride` apart (cols of them where cols < 32), updated in place; writes the outputs of
    // n_group query heads. peek: of one token, without updating S; with cols == 32 only
    void (*gla_block)(float * S, int64_t stride, const spk_gla_item & item, int64_t n_group, int64_t cols, bool peek);
    // dst = src advanced, both as S above; the same block where cols < 32. No outputs (q, o and scale are not read): the same bits
    // however the tokens are divided into calls
    void (*gla_advance)(float * dst, const float * src, int64_t stride, const spk_gla_item & item, int64_t cols);

    // a row of queries becomes row r of the work
    void (*swa_query)(const spk_swa_work & work, int64_t r, const float * q);
    // the tile's rows become what swa_rows reads; asks for the rows behind them
    void (*swa_load)(const spk_swa_work & work);
    // n_rows rows of the work from r0 on, which see the keys first .. last of the tile
    // part, rows d + 2 floats apart: running maximum, sum of 2^(score - maximum), o[d] not yet divided by it
    void (*swa_rows)(float * part, const spk_swa_work & work, int64_t r0, int64_t n_rows, int64_t first, int64_t last);
};

const spk_isa & spk_get_isa();

// NULL where the compiler does not target that family
const spk_isa * spk_isa_generic();
const spk_isa * spk_isa_avx2();
const spk_isa * spk_isa_avxvnni();
const spk_isa * spk_isa_avx512();
const spk_isa * spk_isa_zen4();
const spk_isa * spk_isa_dotprod();
const spk_isa * spk_isa_i8mm();
