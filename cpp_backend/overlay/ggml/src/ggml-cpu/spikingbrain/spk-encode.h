#pragma once

// Encoding of one row, normed before or not (contract: ggml-spikingbrain.h). Same bits on every instruction set: means are summed in
// 16 double lanes, added up in order; division, root and rounding are those of IEEE.

#include "spk-simd.h"

SPK_INLINE double in_order(spk_d lanes) {
    double lane[16];
    d_store(lane, lanes);
    double sum = 0.0;
    for (int i = 0; i < 16; ++i) {
        sum += lane[i];
    }
    return sum;
}

// V_th of n values whose magnitudes have this sum
SPK_INLINE float threshold(double sum, int64_t n, float k) {
    const float v_th = (float) (sum/n)/k;
    return v_th < 1e-5f ? 1e-5f : v_th > 1e4f ? 1e4f : v_th;
}

// a row under construction
struct row_writer {
    int8_t           * s8;
    int32_t          * bias;
    float            * scales;
    float            * scaled;
    int16_t          * sums, * sums_of_32;
    uint8_t          * most;
    ggml_spk_outlier * outliers;
    int32_t            n_outliers;
};

template <typename T>
static T * in_row(void * dst, const T * p) {
    return (T *) ((char *) dst + ((const char *) p - (const char *) dst));
}

// 32 counts; outliers: whether there may be any, beyond +-127
template <class I>
SPK_INLINE void write_block(row_writer & row, int64_t b, I lo, I hi, bool outliers) {
    const I s[2] = { outliers ? i_clamp(lo) : lo, outliers ? i_clamp(hi) : hi };
    int8_t * s8 = row.s8 + 32*b;
    i_store_s8(s8,      s[0]);
    i_store_s8(s8 + 16, s[1]);
    const int32_t sum = i_sum(s[0], s[1]), first = i_sum(s[0], s[0])/2;
    row.bias[b]       = -8*sum;
    row.sums[2*b]     = (int16_t) first;
    row.sums[2*b + 1] = (int16_t) (sum - first);
    row.sums_of_32[b] = (int16_t) sum;

    uint8_t most = 0;
    for (int i = 0; i < 32; ++i) {
        const uint8_t a = s8[i] < 0 ? -s8[i] : s8[i];
        most = a > most ? a : most;
    }
    row.most[b] = most;

    if (!outliers) {
        return;
    }
    if (i_differ(lo, s[0]) || i_differ(hi, s[1])) {
        int32_t count[32];
        i_store(count,      lo);
        i_store(count + 16, hi);
        for (int i = 0; i < 32; ++i) {
            if (count[i] != s8[i]) {
                row.outliers[row.n_outliers++] = { (int32_t) (32*b + i), count[i] - s8[i] };
            }
        }
    }
}

template <bool OUTLIERS>
static void write_counts(row_writer & row, const float * x, int64_t n, float v_th) {
    for (int64_t b = 0; b < n/32; ++b) {
        write_block(row, b, f_quotient(f_load(x + 32*b), v_th), f_quotient(f_load(x + 32*b + 16), v_th), OUTLIERS);
    }
}

static void write_q8(row_writer & row, const float * x, int64_t n) {
    for (int64_t b = 0; b < n/32; ++b) {
        const spk_f lo = f_load(x + 32*b), hi = f_load(x + 32*b + 16);
        const float max   = f_top(f_max(f_abs(lo), f_abs(hi)));
        const float scale = max < 1e-30f ? 0.0f : max/127.0f; // below, the scale would lose its bits
        const float by    = scale > 0.0f ? scale : 1.0f;
        row.scales[b] = scale;
        write_block(row, b, f_quotient(lo, by), f_quotient(hi, by), false);
        row.scaled[b] = scale*row.sums_of_32[b];
    }
}

// the magnitudes of a row
struct row_sum {
    spk_d lanes;
    spk_f top;

    SPK_MEMBER void add(spk_f x) {
        const spk_f a = f_abs(x);
        d_add(lanes, a);
        top = f_max(top, a);
    }
};

SPK_INLINE row_sum sum_row(const float * x, int64_t n) {
    row_sum sum = { d_zero(), f_zero() };
    for (int64_t i = 0; i < n; i += 16) {
        sum.add(f_load(x + i));
    }
    return sum;
}

// x becomes norm.room
SPK_INLINE row_sum norm_row(const float * x, int64_t n, const spk_norm & norm) {
    row_sum sum = { d_zero(), f_zero() };
    float * y = norm.room;
    for (const float * end = x + n; x < end; x += norm.width, y += norm.width) {
        spk_d squares = d_zero();
        for (int64_t i = 0; i < norm.width; i += 16) {
            const spk_f a = f_load(x + i);
            d_add(squares, f_mul(a, a));
        }
        const float scale = 1.0f/sqrtf((float) (in_order(squares)/norm.width) + norm.eps);
        for (int64_t i = 0; i < norm.width; i += 16) {
            const spk_f a = f_mul(f_scale(f_load(x + i), scale), f_load(norm.weight + i));
            f_store(y + i, a);
            sum.add(a);
        }
    }
    return sum;
}

static void encode_row(void * dst, const float * x, int64_t n, float k, ggml_spk_encoding encoding, const spk_norm & norm) {
    ggml_spk_row_header * header = (ggml_spk_row_header *) dst;
    const ggml_spk_row    view   = ggml_spk_row_get(dst, n);
    row_writer row = { in_row(dst, view.s8), in_row(dst, view.bias), in_row(dst, view.scales), in_row(dst, view.scaled), in_row(dst, view.sums), in_row(dst, view.sums) + n/16, in_row(dst, view.most), in_row(dst, view.outliers), 0 };

    const row_sum magnitudes = norm.weight ? norm_row(x, n, norm) : sum_row(x, n);
    x = norm.weight ? norm.room : x;
    const double sum  = in_order(magnitudes.lanes);
    const float  v_th = encoding == GGML_SPK_SPIKE ? threshold(sum, n, k) : 1.0f;
    // a finite sum means finite values; 2^31 - 128 is the largest float below 2^31
    if (!(sum <= DBL_MAX) || (encoding == GGML_SPK_SPIKE && !(f_top(magnitudes.top)/v_th <= 2147483520.0f))) {
        *header = { NAN, encoding, 0 };
        memset(row.s8,     0, n);
        memset(row.bias,   0, n/32*sizeof(int32_t));
        memset(row.scales, 0, n/32*sizeof(float));
        memset(row.scaled, 0, n/32*sizeof(float));
        memset(row.sums,   0, (n/16 + n/32)*sizeof(int16_t));
        memset(row.most,   0, n/32);
        return;
    }

    if (encoding == GGML_SPK_Q8) {
        write_q8(row, x, n);
    } else if (f_top(magnitudes.top)/v_th < 127.5f) { // the largest rounds to 127 at most: most rows
        write_counts<false>(row, x, n, v_th);
    } else {
        write_counts<true>(row, x, n, v_th);
    }
    *header = { v_th, encoding, row.n_outliers };
}
