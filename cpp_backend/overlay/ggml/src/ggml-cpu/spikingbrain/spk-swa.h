// Window attention of one query row over a tile of keys (spk-isa.h), over the vectors of spk-vec.h. Included once per
// instruction set, inside its namespace.

// q . k for n keys of a tile
static void swa_scores(float * out, const float * q, const float * k, int64_t d, int64_t n) {
    const int64_t dv = d & ~(int64_t) (SPK_VEC - 1);
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        const float * k0 = k + j*d;
        spk_vec a0 = spk_set(0.0f), a1 = a0, a2 = a0, a3 = a0;
        for (int64_t i = 0; i < dv; i += SPK_VEC) {
            const spk_vec x = spk_load(q + i);
            a0 = spk_fma(x, spk_load(k0 + i), a0);
            a1 = spk_fma(x, spk_load(k0 + d + i), a1);
            a2 = spk_fma(x, spk_load(k0 + 2*d + i), a2);
            a3 = spk_fma(x, spk_load(k0 + 3*d + i), a3);
        }
        float s[4] = { spk_sum(a0), spk_sum(a1), spk_sum(a2), spk_sum(a3) };
        for (int64_t i = dv; i < d; ++i) {
            for (int c = 0; c < 4; ++c) {
                s[c] += q[i]*k0[c*d + i];
            }
        }
        for (int c = 0; c < 4; ++c) {
            out[j + c] = s[c];
        }
    }
    for (; j < n; ++j) {
        spk_vec a = spk_set(0.0f);
        for (int64_t i = 0; i < dv; i += SPK_VEC) {
            a = spk_fma(spk_load(q + i), spk_load(k + j*d + i), a);
        }
        out[j] = spk_sum(a);
        for (int64_t i = dv; i < d; ++i) {
            out[j] += q[i]*k[j*d + i];
        }
    }
}

// o <- o*old + sum_j p[j] v[j], NV vectors of the row at a time
template <int NV>
static void swa_values(float * o, const float * p, const float * v, int64_t d, int64_t n, float old) {
    spk_vec acc[NV];
    SPK_UNROLL for (int c = 0; c < NV; ++c) {
        acc[c] = spk_load(o + c*SPK_VEC)*old;
    }
    for (int64_t j = 0; j < n; ++j) {
        SPK_UNROLL for (int c = 0; c < NV; ++c) {
            acc[c] = spk_fma(spk_load(v + j*d + c*SPK_VEC), p[j], acc[c]);
        }
    }
    SPK_UNROLL for (int c = 0; c < NV; ++c) {
        spk_store(o + c*SPK_VEC, acc[c]);
    }
}

static void swa_values_all(float * o, const float * p, const float * v, int64_t d, int64_t n, float old) {
    int64_t i = 0;
    for (; i + 4*SPK_VEC <= d; i += 4*SPK_VEC) {
        swa_values<4>(o + i, p, v + i, d, n, old);
    }
    for (; i + SPK_VEC <= d; i += SPK_VEC) {
        swa_values<1>(o + i, p, v + i, d, n, old);
    }
    for (; i < d; ++i) {
        float sum = o[i]*old;
        for (int64_t j = 0; j < n; ++j) {
            sum += p[j]*v[j*d + i];
        }
        o[i] = sum;
    }
}

// exp(x) for x <= 0, relative error below 2e-7; below -87 the result is that of -87, 10^-38
// x = n ln 2 + r, |r| <= ln(2)/2; exp(r) by its Taylor series up to r^6/6!
SPK_INLINE spk_part swa_exp(spk_part x) {
    const spk_part low = spk_part{} - 87.0f;
    x = x < low ? low : x; // NaN stays
    const spk_part_int n = __builtin_convertvector(x*1.44269504f - 0.5f, spk_part_int); // towards zero, so the nearest of x <= 0
    const spk_part f = __builtin_convertvector(n, spk_part);
    const spk_part r = (x - f*0.693359375f) + f*2.12194440e-4f;
    spk_part y = r*(1.0f/720.0f) + 1.0f/120.0f;
    y = y*r + 1.0f/24.0f;
    y = y*r + 1.0f/6.0f;
    y = y*r + 0.5f;
    y = y*r*r + r + 1.0f;
    return y*(spk_part) ((n + 127) << 23);
}

SPK_INLINE spk_vec swa_exp_all(spk_vec x) {
#ifdef __aarch64__
    SPK_PARTS x.v[i] = swa_exp(x.v[i]);
    return x;
#else
    return swa_exp(x);
#endif
}

static void swa_row(float * part, const float * q, const float * k, const float * v, const float * k_scale, int64_t d, int64_t n, float scale, float * score) {
    swa_scores(score, q, k, d, n);
    float max = part[0];
    for (int64_t j = 0; j < n; ++j) {
        score[j] *= k_scale ? scale*k_scale[j] : scale;
        max = score[j] > max ? score[j] : max;
    }
    const float old = part[0] == -INFINITY ? 0.0f : expf(part[0] - max);

    // up to a whole number of vectors: score has room, and the sum leaves the rest out
    spk_vec sum = spk_set(0.0f);
    for (int64_t j = n; j % SPK_VEC != 0; ++j) {
        score[j] = -INFINITY;
    }
    for (int64_t j = 0; j < n; j += SPK_VEC) {
        spk_store(score + j, swa_exp_all(spk_load(score + j) - max));
    }
    for (int64_t j = n; j % SPK_VEC != 0; ++j) {
        score[j] = 0.0f;
    }
    for (int64_t j = 0; j < n; j += SPK_VEC) {
        sum = sum + spk_load(score + j);
    }
    part[0] = max;
    part[1] = part[1]*old + spk_sum(sum);
    swa_values_all(part + 2, score, v, d, n, old);
}

static void swa_codes(float * out, float * scale, const int8_t * rows, int64_t stride, int64_t d, int64_t n) {
    for (int64_t j = 0; j < n; ++j, rows += stride) {
        for (int64_t i = 0; i < d; ++i) {
            out[j*d + i] = rows[i];
        }
        memcpy(scale + j, rows + GGML_SPK_KV_ROW(d) - sizeof(float), sizeof(float));
    }
}
