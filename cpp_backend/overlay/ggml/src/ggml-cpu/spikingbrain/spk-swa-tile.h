#pragma once

// What window attention on floats (spk-swa.h) and on INT8 keys and values (spk-swa-int.h) share: blocks of query rows, products of floats over
// a tile, the exponential. Included inside the namespace of the instruction set.

#include "spk-reg.h"
#include "spk-vec.h"

static const int  SWA_R    = 4;                    // rows of a block
static const int  SWA_C    = SPK_REG == 8 ? 2 : 4; // its keys, or registers of columns: what fits beside their sums
static const int  SWA_FEW  = 2*SWA_R;              // so many rows read a tile of floats where it lies
static const bool SWA_TURN = SPK_REG >= 8;         // more of them read it with keys side by side, for there is no sum over a wide register
#ifndef SWA_NEAR
#define SWA_NEAR 0 // rows ahead of which keys and values that are read where they lie are asked for again, into the first cache
#endif

template <int N> struct swa_int { static const int value = N; };

// f(r, swa_int<R>) for blocks of R rows
template <typename F>
SPK_INLINE void swa_blocks(int64_t n_rows, F f) {
    int64_t r = 0;
    for (; r + SWA_R <= n_rows; r += SWA_R) {
        f(r, swa_int<SWA_R>());
    }
    switch (n_rows - r) {
        case 3: return f(r, swa_int<3>());
        case 2: return f(r, swa_int<2>());
        case 1: return f(r, swa_int<1>());
    }
}
#define SWA_INLINE __attribute__((always_inline))

// asks for n bytes of the rows a tile on, into the second cache: the first one holds little more than a tile
SPK_INLINE void swa_ahead(const char * x, int64_t n, int64_t stride) {
    for (int64_t i = 0; i < n; i += 64) {
        if (SWA_NEAR > 0) {
            __builtin_prefetch(x + SWA_NEAR*stride + i);
        }
        __builtin_prefetch(x + SPK_SWA_TILE*stride + i, 0, 2);
    }
}

SPK_INLINE float   swa_float(float x)               { return x; }
SPK_INLINE float   swa_float(ggml_fp16_t x)         { return half_to_float((const uint8_t *) &x); }
SPK_INLINE spk_reg swa_reg(const float * x)         { return r_load(x); }
SPK_INLINE spk_reg swa_reg(const ggml_fp16_t * x)   { return r_half(x); }
#ifdef SWA_CODES
SPK_INLINE float   swa_float(int8_t x)              { return x; }
SPK_INLINE spk_reg swa_reg(const int8_t * x)        { return r_codes(x); }
#endif

// out[r][c] = q[r] . k[c], R rows of q and C keys; out's rows are SPK_SWA_TILE apart. The order of a sum is the same for every R and C.
template <int R, int C, typename T>
static void swa_dots(float * out, const float * q, const T * const * k, int64_t d) {
    spk_reg acc[(R*C + 3)/4*4] = {};
    const int64_t dv = d - d % SPK_REG;
    for (int64_t i = 0; i < dv; i += SPK_REG) {
        spk_reg x[R];
        SPK_UNROLL for (int r = 0; r < R; ++r) {
            x[r] = r_load(q + r*d + i);
            r_keep(x[r]);
        }
        SPK_UNROLL for (int c = 0; c < C; ++c) {
            spk_reg y = swa_reg(k[c] + i);
            r_keep(y);
            SPK_UNROLL for (int r = 0; r < R; ++r) {
                acc[r*C + c] += x[r]*y;
            }
        }
    }
    float sum[(R*C + 3)/4*4];
    SPK_UNROLL for (int a = 0; a < R*C; a += 4) {
        const spk_four four = r_sums(acc + a);
        memcpy(sum + a, &four, sizeof(four));
    }
    for (int64_t i = dv; i < d; ++i) {
        for (int a = 0; a < R*C; ++a) {
            sum[a] += q[a/C*d + i]*swa_float(k[a % C][i]);
        }
    }
    SPK_UNROLL for (int r = 0; r < R; ++r) {
        memcpy(out + r*SPK_SWA_TILE, sum + r*C, C*sizeof(float));
    }
}

template <typename T>
static void swa_widen(float * out, const char * rows, int64_t stride, int64_t d, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
        const T * x = (const T *) (rows + j*stride);
        const int64_t dv = d - d % SPK_REG;
        for (int64_t i = 0; i < dv; i += SPK_REG) {
            r_store(out + j*d + i, swa_reg(x + i));
        }
        for (int64_t i = dv; i < d; ++i) {
            out[j*d + i] = swa_float(x[i]);
        }
    }
}

// Few rows of whole registers. A register has SWA_LANES lanes of 4 columns; one of queries holds another row in each lane, so that sums
// of one row lie in one lane, and adding lanes of several registers takes the place of sums over each.
static const int SWA_LANES = SPK_REG/4;

SPK_INLINE bool swa_in_lanes(const spk_swa_work & w) { return SWA_LANES > 1 && w.n_rows <= SWA_FEW && w.d % SPK_REG == 0; }

// row r of queries [rows/SWA_R][d/SPK_REG][SWA_R][SWA_LANES][4]: lane l of register p*SWA_LANES + s has row p*SWA_LANES + (l + s) % SWA_LANES
static void swa_query_in_lanes(float * out, const float * q, int64_t r, int64_t d) {
    const int64_t in_block = r % SWA_R, row = in_block % SWA_LANES, p = in_block - row;
    out += (r - in_block)*d;
    for (int64_t i = 0; i < d; i += 4) {
        const int64_t lane = i/4 % SWA_LANES, s = (row + SWA_LANES - lane) % SWA_LANES;
        memcpy(out + (i/SPK_REG*SWA_R + p + s)*SPK_REG + lane*4, q + i, 4*sizeof(float));
    }
}

// out[r][c] = q[r] . k[c], SWA_R rows and SWA_C keys; out's rows are SPK_SWA_TILE apart
template <typename T>
SPK_INLINE void swa_dots_in_lanes(float * out, const float * q, const T * const * k, int64_t d) {
    static const int P = SWA_R/SWA_LANES; // registers of a key's sums
    spk_reg acc[SWA_C][SWA_R] = {};
    for (int64_t i = 0; i < d; i += SPK_REG) {
        spk_reg x[SWA_R];
        SPK_UNROLL for (int r = 0; r < SWA_R; ++r) {
            x[r] = r_load(q + i*SWA_R + r*SPK_REG);
            r_keep(x[r]);
        }
        SPK_UNROLL for (int c = 0; c < SWA_C; ++c) {
            spk_reg y = swa_reg(k[c] + i);
            r_keep(y);
            SPK_UNROLL for (int r = 0; r < SWA_R; ++r) {
                acc[c][r] += x[r]*y;
            }
        }
    }
    spk_reg sum[P*SWA_C];
    SPK_UNROLL for (int c = 0; c < SWA_C; ++c) {
        SPK_UNROLL for (int p = 0; p < P; ++p) {
            sum[p*SWA_C + c] = r_turned(acc[c] + p*SWA_LANES);
        }
    }
    const spk_reg all = r_pairs(r_pairs(sum[0], sum[1]), r_pairs(sum[2], sum[3]));
    SPK_UNROLL for (int r = 0; r < SWA_R; ++r) {
        memcpy(out + r*SPK_SWA_TILE, (const char *) &all + 16*(r % SWA_LANES) + 4*SWA_C*(r/SWA_LANES), 4*SWA_C);
    }
}

// scores of the keys first .. last and, where they are not a multiple of SWA_C, of the last one again
template <typename T>
static void swa_dots_all(const spk_swa_work & w, const char * rows, int64_t stride, int64_t r0, int64_t n_rows, int64_t first, int64_t last) {
    for (int64_t j = first; j < last; j += SWA_C) {
        const T * k[SWA_C];
        SPK_UNROLL for (int c = 0; c < SWA_C; ++c) {
            k[c] = (const T *) (rows + (j + c < last ? j + c : last - 1)*stride);
            swa_ahead((const char *) k[c], w.d*sizeof(T), stride);
        }
        float * out = w.score + j;
        if (swa_in_lanes(w)) {
            for (int64_t r = r0 - r0 % SWA_R; r < r0 + n_rows; r += SWA_R) {
                swa_dots_in_lanes(out + r*SPK_SWA_TILE, w.q + r*w.d, k, w.d);
            }
            continue;
        }
        swa_blocks(n_rows, [&](int64_t r, auto R) SWA_INLINE { swa_dots<decltype(R)::value, SWA_C>(out + (r0 + r)*SPK_SWA_TILE, w.q + (r0 + r)*w.d, k, w.d); });
    }
}

// rows that are asked for beside others
struct swa_rows_ahead { const char * rows; int64_t stride; };

// o[r] <- o[r]*old[r] + sum over first <= j < last of p[r][j] v[j], NV registers of columns; without old: o starts at zero
// asks for LINES cache lines of a row ahead with each v[j]; LIES: v is not in the first cache yet
template <int R, int NV, int LINES, bool LIES, typename T>
static void swa_product(float * o, int64_t stride_o, const float * old, const float * p, int64_t stride_p, const char * v, int64_t stride_v,
                        int64_t first, int64_t last, swa_rows_ahead ahead = {}) {
    spk_reg acc[R][NV] = {};
    SPK_UNROLL for (int r = 0; old && r < R; ++r) {
        SPK_UNROLL for (int c = 0; c < NV; ++c) {
            acc[r][c] = r_load(o + r*stride_o + c*SPK_REG)*old[r];
        }
    }
    for (int64_t j = first; j < last; ++j) {
        spk_reg x[NV];
        SPK_UNROLL for (int c = 0; c < NV; ++c) {
            x[c] = swa_reg((const T *) (v + j*stride_v) + c*SPK_REG);
            r_keep(x[c]);
        }
        SPK_UNROLL for (int i = 0; i < LINES; ++i) {
            if (LIES && SWA_NEAR > 0) {
                __builtin_prefetch(v + (j + SWA_NEAR)*stride_v + 64*i);
            }
            __builtin_prefetch(ahead.rows + 64*i, 0, 2);
        }
        ahead.rows += ahead.stride;
        SPK_UNROLL for (int r = 0; r < R; ++r) {
            SPK_UNROLL for (int c = 0; c < NV; ++c) {
                acc[r][c] += x[c]*p[r*stride_p + j];
            }
        }
    }
    SPK_UNROLL for (int r = 0; r < R; ++r) {
        SPK_UNROLL for (int c = 0; c < NV; ++c) {
            r_store(o + r*stride_o + c*SPK_REG, acc[r][c]);
        }
    }
}

// ahead(column): the rows to ask for with each key while the columns from there on are summed
template <typename T, int LINES, bool LIES, typename F>
static void swa_values(float * o, const float * old, const float * p, int64_t n_rows, const char * v, int64_t stride, int64_t d, int64_t first, int64_t last, F ahead) {
    const int64_t so = d + 2, sp = SPK_SWA_TILE;
    int64_t i = 0;
    for (; i + SWA_C*SPK_REG <= d; i += SWA_C*SPK_REG) {
        swa_blocks(n_rows, [&](int64_t r, auto R) SWA_INLINE {
            swa_product<decltype(R)::value, SWA_C, LINES, LIES, T>(o + r*so + i, so, old + r, p + r*sp, sp, v + i*sizeof(T), stride, first, last, ahead(i));
        });
    }
    for (; i + SPK_REG <= d; i += SPK_REG) {
        swa_blocks(n_rows, [&](int64_t r, auto R) SWA_INLINE {
            swa_product<decltype(R)::value, 1, 0, LIES, T>(o + r*so + i, so, old + r, p + r*sp, sp, v + i*sizeof(T), stride, first, last);
        });
    }
    for (; i < d; ++i) {
        for (int64_t r = 0; r < n_rows; ++r) {
            float sum = o[r*so + i]*old[r];
            for (int64_t j = first; j < last; ++j) {
                sum += p[r*sp + j]*swa_float(((const T *) (v + j*stride))[i]);
            }
            o[r*so + i] = sum;
        }
    }
}

// the whole number next to x <= 0, and y*2^n; AVX-512 has an instruction for each
template <typename V>
SPK_INLINE V r_whole(V x) { return __builtin_convertvector(__builtin_convertvector(x - 0.5f, spk_part_int), V); }
template <typename V>
SPK_INLINE V r_power(V y, V n) { return y*(V) ((__builtin_convertvector(n, spk_part_int) + 127) << 23); }

// 2^x for x <= 0, relative error below 2e-7; below -126, where it is 10^-38, zero
// x = n + f, |f| <= 1/2; 2^f by its Taylor series up to (f ln 2)^6/6!
SPK_INLINE spk_part swa_exp2(spk_part x) {
    const spk_part n = r_whole(x);
    const spk_part f = x - n;
    spk_part y = f*1.54035304e-4f + 1.33335581e-3f;
    y = y*f + 9.61812911e-3f;
    y = y*f + 5.55041087e-2f;
    y = y*f + 2.40226507e-1f;
    y = y*f + 6.93147181e-1f;
    y = y*f + 1.0f;
    return x < spk_part{} - 126.0f ? spk_part{} : r_power(y, n); // NaN stays
}

SPK_INLINE spk_vec swa_exp2_all(spk_vec x) {
    SPK_PARTS x.v[i] = swa_exp2(x.v[i]);
    return x;
}

#define SWA_EACH SPK_UNROLL for (int i = 0; i < SPK_SWA_TILE/SPK_VEC; ++i)
#define SWA_ROWS SPK_UNROLL for (int r = 0; r < R; ++r)
