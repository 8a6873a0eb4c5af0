// Spike encoding and the integer matrix product. Integer sums must be exact: with scales and thresholds that are
// powers of two, and sums that a float holds, the result must equal a 64-bit integer reference bit for bit.
// Runs on the instruction set that SPIKINGBRAIN_ISA names; tests/test_cpp.py runs it on each.

#include "check.h"
#include "cpu.h"

#include "ggml.h"
#include "ggml-backend.h"
#include "ggml-alloc.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <cstring>
#include <limits>

static ggml_backend_t             cpu;
static ggml_backend_buffer_type_t buft_plain, buft_spk;

static const char * name_of(ggml_backend_buffer_type_t buft) {
    return ggml_backend_buft_name(buft);
}

static void find_buffer_types() {
    cpu        = cpu_backend();
    buft_plain = ggml_backend_get_default_buffer_type(cpu);
    buft_spk   = spk_buffer_type();
}

// tensors of a buffer type, allocated together
struct tensors {
    ggml_context        * ctx = ggml_init({ 1 << 20, nullptr, true });
    ggml_backend_buffer_t buf = nullptr;

    ~tensors() {
        ggml_backend_buffer_free(buf);
        ggml_free(ctx);
    }
    void alloc(ggml_backend_buffer_type_t buft) {
        buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft);
        GGML_ASSERT(buf);
    }
    void compute(ggml_tensor * t, int n_threads) const {
        ggml_cgraph * gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, t);
        cpu_compute(gf, n_threads);
    }
};

//
// encoding
//

struct encoded {
    float                v_th;
    std::vector<int64_t> counts;
};

// the definition; the mean is summed in 16 double lanes, added up in order
static encoded encode_reference(const float * x, int64_t n, float k) {
    double lane[16] = {}, sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        lane[i % 16] += std::fabs((double) x[i]);
    }
    for (double l : lane) {
        sum += l;
    }
    encoded e = { std::min(std::max((float) (sum/n)/k, 1e-5f), 1e4f), std::vector<int64_t>(n) };
    bool ok = std::isfinite(sum);
    for (int64_t i = 0; i < n && ok; ++i) {
        const float q = std::nearbyint(x[i]/e.v_th);
        ok = std::fabs(q) <= 2147483520.0f;
        e.counts[i] = ok ? (int64_t) q : 0;
    }
    if (!ok) {
        e = { NAN, std::vector<int64_t>(n) };
    }
    return e;
}

static std::vector<float> row_of_kind(int kind, int64_t n, random_floats & rnd) {
    auto x = rnd.normal(n);
    switch (kind) {
        case  0: break;
        case  1: std::fill(x.begin(), x.end(), 0.0f); break;
        case  2: for (auto & v : x) { v *= 1e-6f; } break;                  // V_th at the lower clamp
        case  3: for (auto & v : x) { v = 3e7f*(v < 0 ? v - 1 : v + 1); } break; // at the upper clamp: all are outliers
        case  4: x[rnd.rng() % n] = 1e6f; break;                           // one huge outlier
        case  5: for (auto & v : x) { v = v*v*v*v*v; } break;              // heavy tails
        case  6: x[n/2] = NAN; break;
        case  7: x[n - 1] = INFINITY; break;
        case  8: x[0] = -INFINITY; break;
        case  9: x[n/3] = 1e14f; std::fill(x.begin(), x.begin() + n/3, 1e14f); break; // count beyond int32
        case 10: for (int64_t i = 0; i < n; ++i) { x[i] = (i % 2 ? -0.5f : 0.5f)*(float) (i % 16); } break; // halves: V_th = 1.25
        case 11: x.assign(n, 1e-41f); break;
        case 12: for (int64_t i = 0; i < n; ++i) { x[i] = (i % 4) - 1.5f; } break; // +-0.5, +-1.5: V_th = 1/k
        case 13: for (int64_t i = 0; i < n; ++i) { x[i] = 1e4f*(float) ((i % 2 ? -1 : 1)*(126 + i/2 % 4)); } break; // V_th = 1e4: counts around the clamp to int8
        case 14: x[n - 1] = 1e4f*2147483520.0f; break;                                       // the largest counts there are: below 2^31
        case 15: x[n - 1] = std::nextafterf(1e4f*2147483520.0f, INFINITY); break;            // the next float: refused
        case 16: x[0] = -1e4f*2147483520.0f; break;
    }
    return x;
}
static const int N_KINDS = 17;

static void test_encode(int64_t n, int64_t T, float k, int n_threads) {
    random_floats rnd(n + T);
    std::vector<float> x;
    for (int64_t t = 0; t < T; ++t) {
        const auto row = row_of_kind(t % N_KINDS, n, rnd);
        x.insert(x.end(), row.begin(), row.end());
    }
    tensors g;
    ggml_tensor * tx = ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, n, T);
    ggml_tensor * ts = ggml_spk_encode(g.ctx, tx, k, GGML_SPK_SPIKE);
    ggml_tensor * tq = ggml_spk_encode(g.ctx, tx, k, GGML_SPK_Q8);
    g.alloc(buft_plain);
    memcpy(tx->data, x.data(), ggml_nbytes(tx));
    memset(ts->data, 0x55, ggml_nbytes(ts));
    g.compute(ts, n_threads);
    g.compute(tq, n_threads);

    for (int64_t t = 0; t < T; ++t) {
        char name[128];
        snprintf(name, sizeof(name), "encode n=%d row=%d kind=%d k=%g threads=%d", (int) n, (int) t, (int) t % N_KINDS, k, n_threads);
        const void * data = (const char *) ts->data + t*ts->nb[1];
        const auto row = ggml_spk_row_get(data, n);
        const auto ref = encode_reference(&x[t*n], n, k);

        std::vector<int32_t> counts(n);
        ggml_spk_row_counts(data, n, counts.data());
        bool same = true, bounded = true;
        for (int64_t i = 0; i < n; ++i) {
            same    &= counts[i] == ref.counts[i];
            bounded &= row.s8[i] == std::max<int64_t>(-127, std::min<int64_t>(127, ref.counts[i]));
        }
        check(same && bounded, std::string(name) + " counts");
        check(memcmp(&row.v_th, &ref.v_th, sizeof(float)) == 0 || (std::isnan(row.v_th) && std::isnan(ref.v_th)), std::string(name) + " v_th");

        bool bias = true;
        for (int64_t b = 0; b < n/32; ++b) {
            int sum[2] = {};
            for (int i = 0; i < 32; ++i) {
                sum[i/16] += row.s8[32*b + i];
            }
            bias &= row.bias[b] == -8*(sum[0] + sum[1]) && row.sums[2*b] == sum[0] && row.sums[2*b + 1] == sum[1] && row.sums[n/16 + b] == sum[0] + sum[1];
        }
        check(bias, std::string(name) + " bias and sums");

        const auto q8 = ggml_spk_row_get((const char *) tq->data + t*tq->nb[1], n);
        bool close = true;
        for (int64_t i = 0; i < n && !std::isnan(q8.v_th); ++i) {
            float max = 0;
            for (int64_t j = i/32*32; j < i/32*32 + 32; ++j) {
                max = std::max(max, std::fabs(x[t*n + j]));
            }
            close &= std::fabs(q8.scales[i/32]*q8.s8[i] - x[t*n + i]) <= max/254*1.0001f + 1e-30f;
        }
        for (int64_t b = 0; b < n/32; ++b) {
            close &= q8.scaled[b] == q8.scales[b]*q8.sums[n/16 + b];
        }
        check(close && q8.n_outliers == 0, std::string(name) + " q8");
        check(std::isnan(q8.v_th) == (t % N_KINDS >= 6 && t % N_KINDS <= 8), std::string(name) + " q8 refuses NaN and infinities");
    }
}

// RMSNorm and weight before the encoding: the same rows as of the floats that plain loops make, which are ggml's but for the order of a sum
static void test_encode_norm(int64_t n, int64_t width, int64_t T, int n_threads) {
    const float eps = 1e-6f;
    random_floats rnd(n + width + T);
    const auto weight = rnd.normal(width);
    std::vector<float> x, y;
    for (int64_t t = 0; t < T; ++t) {
        const auto row = row_of_kind(t % N_KINDS, n, rnd);
        x.insert(x.end(), row.begin(), row.end());
    }
    x[5] = T > 1 ? x[5] : 1e30f; // its square is infinite
    for (size_t head = 0; head < x.size(); head += width) {
        double lane[16] = {}, sum = 0;
        for (int64_t i = 0; i < width; ++i) {
            lane[i % 16] += x[head + i]*x[head + i];
        }
        for (double l : lane) {
            sum += l;
        }
        const float scale = 1.0f/std::sqrt((float) (sum/width) + eps);
        for (int64_t i = 0; i < width; ++i) {
            const float scaled = x[head + i]*scale;
            y.push_back(scaled*weight[i]);
        }
    }

    tensors g;
    ggml_tensor * tx = ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, n, T);
    ggml_tensor * ty = ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, n, T);
    ggml_tensor * tw = ggml_new_tensor_1d(g.ctx, GGML_TYPE_F32, width);
    ggml_tensor * tn = ggml_mul(g.ctx, ggml_rms_norm(g.ctx, ggml_reshape_3d(g.ctx, tx, width, n/width, T), eps), tw);
    ggml_tensor * rows[2][2]; // by encoding: of y, of x
    for (auto encoding : { GGML_SPK_SPIKE, GGML_SPK_Q8 }) {
        rows[encoding][0] = ggml_spk_encode(g.ctx, ty, 3.0f, encoding);
        rows[encoding][1] = ggml_spk_encode_norm(g.ctx, tx, tw, eps, 3.0f, encoding);
    }
    g.alloc(buft_plain);
    memcpy(tx->data, x.data(), ggml_nbytes(tx));
    memcpy(ty->data, y.data(), ggml_nbytes(ty));
    memcpy(tw->data, weight.data(), ggml_nbytes(tw));

    char name[128];
    snprintf(name, sizeof(name), "encode norm n=%d width=%d T=%d threads=%d", (int) n, (int) width, (int) T, n_threads);
    for (auto encoding : { GGML_SPK_SPIKE, GGML_SPK_Q8 }) {
        ggml_tensor ** r = rows[encoding];
        for (int i = 0; i < 2; ++i) {
            memset(r[i]->data, 0x55, ggml_nbytes(r[i]));
            g.compute(r[i], n_threads);
        }
        check(memcmp(r[0]->data, r[1]->data, ggml_nbytes(r[0])) == 0, std::string(name) + (encoding == GGML_SPK_Q8 ? " q8" : " spikes"));
    }
    g.compute(tn, 1);
    bool close = true;
    for (size_t i = 0; i < y.size(); ++i) {
        const float z = ((float *) tn->data)[i];
        close &= std::fabs(y[i] - z) <= 3e-7f*std::fabs(z) || (std::isnan(y[i]) && std::isnan(z));
    }
    check(close, std::string(name) + " ggml's");
}

//
// matrix product
//

// a packed row with these counts
static void write_row(void * data, const std::vector<int64_t> & counts, float v_th) {
    const int64_t n = counts.size();
    const auto row = ggml_spk_row_get(data, n);
    auto * s8       = const_cast<int8_t *>(row.s8);
    auto * bias     = const_cast<int32_t *>(row.bias);
    auto * outliers = const_cast<ggml_spk_outlier *>(row.outliers);
    auto * sums     = const_cast<int16_t *>(row.sums);
    auto * most     = const_cast<uint8_t *>(row.most);

    int32_t n_outliers = 0;
    std::fill(bias, bias + n/32, 0);
    std::fill(sums, sums + n/16 + n/32, 0);
    std::fill(most, most + n/32, 0);
    for (int64_t i = 0; i < n; ++i) {
        s8[i] = (int8_t) std::max<int64_t>(-127, std::min<int64_t>(127, counts[i]));
        bias[i/32] -= 8*s8[i];
        sums[i/16] += s8[i];
        sums[n/16 + i/32] += s8[i];
        most[i/32] = std::max<int>(most[i/32], std::abs(s8[i]));
        if (counts[i] != s8[i]) {
            outliers[n_outliers++] = { (int32_t) i, (int32_t) (counts[i] - s8[i]) };
        }
    }
    *(ggml_spk_row_header *) data = { v_th, GGML_SPK_SPIKE, n_outliers };
}

// of IQ4_NL
static const int iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

// integer weights and their form on disk
struct matrix {
    ggml_type            type;
    int64_t              n, m, group;
    std::vector<int32_t> w;      // complete, rest included
    std::vector<float>   scales; // [m][n/group]
    std::vector<uint8_t> disk;
    std::vector<int32_t> rest_index;
    std::vector<int16_t> rest_value;
    std::vector<int>     code, minimum; // from 0 on; of each 32, times the scale

    matrix(ggml_type type, int64_t n, int64_t m, random_floats & rnd, int extreme, double rest_share) :
        type(type), n(n), m(m), group(type == GGML_TYPE_I8 ? 128 : 32), w(n*m), scales(m*n/group), disk(m*ggml_row_size(type, n)), code(n*m), minimum(n*m/32) {
        const int n_codes = bits() == 4 ? 16 : bits() == 5 ? 32 : 256;
        for (auto & s : scales) {
            s = extreme ? 0.5f : std::ldexp(1.0f, -3 - (int) (rnd.rng() % 3));
        }
        for (auto & x : minimum) {
            x = extreme ? -8 : -12 + (int) (rnd.rng() % 16); // times the scale
        }
        for (int64_t i = 0; i < n*m; ++i) {
            code[i] = extreme == 1 ? n_codes - 1 : extreme == 2 ? 0 : (int) (rnd.rng() % n_codes);
            w[i]    = type == GGML_TYPE_IQ4_NL ? iq4_values[code[i]] : has_minima() ? code[i] + minimum[i/32] : code[i] - n_codes/2;
        }
        write_disk();
        if (type == GGML_TYPE_I8) {
            for (int64_t i = 0; i < n*m; ++i) {
                if (rnd.rng() % 10000 < rest_share*10000) {
                    const int v = (w[i] < 0 ? -1 : 1)*(int) (1 + rnd.rng() % 68);
                    rest_index.push_back((int32_t) i);
                    rest_value.push_back((int16_t) v);
                    w[i] += v;
                }
            }
        }
    }

    int  bits() const {
        return type == GGML_TYPE_I8 || type == GGML_TYPE_Q8_0 ? 8 : type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q5_1 ? 5 : 4;
    }
    bool has_minima() const { return type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_1; }

    // blocks begin with scale, minimum, fifth bits, as far as the type has them
    void write_disk() {
        const size_t block_size = ggml_row_size(type, 32);
        for (int64_t b = 0; b < n*m/32; ++b) {
            uint8_t * q = &disk[b*block_size];
            auto put = [&](float x) {
                const ggml_fp16_t half = ggml_fp32_to_fp16(x);
                memcpy(q, &half, 2);
                q += 2;
            };
            if (type != GGML_TYPE_I8) {
                put(scales[b]);
            }
            if (has_minima()) {
                put(minimum[b]*scales[b]);
            }
            uint8_t * nibbles = bits() == 5 ? q + 4 : q;
            for (int i = 0; i < 32; ++i) {
                const int v = code[b*32 + i];
                if (bits() == 8) {
                    q[i] = (uint8_t) (v - 128);
                    continue;
                }
                nibbles[i % 16] |= (v & 15) << i/16*4;
                if (bits() == 5) {
                    q[i/8] |= (v >> 4) << i % 8;
                }
            }
        }
    }
};

// buft_scales: of INT8 codes, as the matrix where it is NULL
static std::vector<float> multiply(const matrix & w, const std::vector<uint8_t> & act, int64_t T, ggml_backend_buffer_type_t buft, int n_threads,
        const std::vector<float> * bias = nullptr, bool relu = false, const std::vector<float> * residual = nullptr, const std::vector<float> * gate = nullptr,
        ggml_backend_buffer_type_t buft_scales = nullptr) {
    tensors tw, ts, g;
    ggml_tensor * t_w      = ggml_new_tensor_2d(tw.ctx, w.type, w.n, w.m);
    ggml_tensor * t_scales = w.type == GGML_TYPE_I8 ? ggml_new_tensor_2d(ts.ctx, GGML_TYPE_F32, w.n/128, w.m) : nullptr;
    tw.alloc(buft);
    ggml_backend_tensor_set(t_w, w.disk.data(), 0, w.disk.size());
    if (t_scales) {
        ts.alloc(buft_scales ? buft_scales : buft);
        ggml_backend_tensor_set(t_scales, w.scales.data(), 0, ggml_nbytes(t_scales));
    }

    const bool rest = !w.rest_index.empty();
    ggml_tensor * t_index  = rest ? ggml_new_tensor_1d(g.ctx, GGML_TYPE_I32, w.rest_index.size()) : nullptr;
    ggml_tensor * t_value  = rest ? ggml_new_tensor_1d(g.ctx, GGML_TYPE_I16, w.rest_index.size()) : nullptr;
    ggml_tensor * t_act    = ggml_new_tensor_2d(g.ctx, GGML_TYPE_I8, ggml_spk_row_size(w.n), T);
    ggml_tensor * y        = ggml_spk_mul_mat(g.ctx, t_w, t_scales, t_index, t_value, t_act);
    ggml_tensor * t_bias     = bias     ? ggml_new_tensor_1d(g.ctx, GGML_TYPE_F32, w.m) : nullptr;
    ggml_tensor * t_residual = residual ? ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, w.m, T) : nullptr;
    ggml_tensor * t_gate     = gate     ? ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, w.m, T) : nullptr;
    ggml_spk_mul_mat_then(y, t_bias, relu, t_residual);
    if (gate) {
        ggml_spk_mul_mat_gate(y, t_gate);
    }
    GGML_ASSERT(ggml_backend_supports_op(cpu, y));
    g.alloc(buft_plain);
    if (t_bias) {
        memcpy(t_bias->data, bias->data(), ggml_nbytes(t_bias));
    }
    if (t_residual) {
        memcpy(t_residual->data, residual->data(), ggml_nbytes(t_residual));
    }
    if (t_gate) {
        memcpy(t_gate->data, gate->data(), ggml_nbytes(t_gate));
    }
    if (rest) {
        memcpy(t_index->data, w.rest_index.data(), ggml_nbytes(t_index));
        memcpy(t_value->data, w.rest_value.data(), ggml_nbytes(t_value));
    }
    memcpy(t_act->data, act.data(), act.size());
    g.compute(y, n_threads);
    memset(y->data, 0xff, ggml_nbytes(y));
    g.compute(y, n_threads); // a graph runs more than once
    return std::vector<float>((float *) y->data, (float *) y->data + w.m*T);
}

enum counts_kind { RANDOM, ZEROS, ONE_HUGE, FULL, ALL_OUTLIERS, NAN_ROW, N_COUNTS,
                   SMALL, MOST, LEAST, EITHER, BEYOND, // by name only: sums with a code stay in a byte (spk-pairs-avx512.h), or just not
                   STEPS_UP, STEPS_DOWN };             // sums of bytes with 16, 32, 64 stay in 16 bits (spk-bytes-avx2.h), or just not

static std::vector<int64_t> counts_of_kind(int kind, int64_t n, random_floats & rnd) {
    std::vector<int64_t> s(n);
    const int steps[] = { 16, 17, 32, 33, 64, 65 };
    for (auto & v : s) {
        const int r = rnd.rng() % 100, step = steps[(&v - s.data())/32 % 6];
        v = (int64_t) (rnd.rng() % 15) - 7;
        v = r == 0 ? v*400 : r < 5 ? v*20 : v; // a few beyond int8
        switch (kind) {
            case ZEROS:   v = 0; break;
            case NAN_ROW: v = 0; break;
            case FULL:    v = 127; break;
            case ALL_OUTLIERS: v = (int64_t) (rnd.rng() % 200000) - 100000; break;
            case STEPS_UP:   v = step; break;
            case STEPS_DOWN: v = -step; break;
            case SMALL:   v = (int64_t) (rnd.rng() % 15) - 7; break;
            case MOST:    v = 120; break;
            case LEAST:   v = -120; break;
            case EITHER:  v = rnd.rng() % 2 ? 120 : -120; break;
            case BEYOND:  v = r == 0 ? 121 : r == 1 ? -121 : (int64_t) (rnd.rng() % 241) - 120; break;
        }
    }
    if (kind == ONE_HUGE) {
        s[rnd.rng() % n] = rnd.rng() % 2 ? 2147483520 : -2147483520;
    }
    return s;
}

static void test_exact(ggml_type type, int64_t n, int64_t m, int64_t T, int extreme, double rest_share, std::vector<int> threads, int of_all = N_COUNTS) {
    random_floats rnd(n*7 + m*131 + T);
    const matrix w(type, n, m, rnd, extreme, rest_share);

    const size_t row_size = ggml_spk_row_size(n);
    std::vector<uint8_t> act(T*row_size);
    std::vector<float>   expected(m*T);
    for (int64_t t = 0; t < T; ++t) {
        const int  kind = of_all != N_COUNTS ? of_all : extreme ? (t % 2 ? FULL : ZEROS) : T == 1 ? (int) (m % N_COUNTS) : (int) (t % N_COUNTS);
        const auto s    = counts_of_kind(kind, n, rnd);
        const float v_th = kind == NAN_ROW ? NAN : std::ldexp(1.0f, t % 2 ? -16 : 13); // about the clamps
        write_row(&act[t*row_size], s, v_th);
        for (int64_t r = 0; r < m; ++r) {
            double sum = 0;
            for (int64_t g = 0; g < n/w.group; ++g) {
                int64_t isum = 0;
                for (int64_t i = g*w.group; i < (g + 1)*w.group; ++i) {
                    isum += w.w[r*n + i]*s[i];
                }
                sum += (double) w.scales[r*n/w.group + g]*isum; // exact: powers of two times less than 2^53
            }
            expected[t*m + r] = (float) (v_th*sum);
        }
    }
    // the matrix, its scales: a user may place the one elsewhere than the other
    const std::pair<ggml_backend_buffer_type_t, ggml_backend_buffer_type_t> places[] = {
        { buft_plain, buft_plain }, { buft_spk, buft_spk }, { buft_plain, buft_spk }, { buft_spk, buft_plain } };
    for (const auto & [buft, buft_scales] : places) {
        if ((buft == buft_spk || buft_scales == buft_spk) && m % 16 != 0) {
            continue;
        }
        if (buft != buft_scales && (type != GGML_TYPE_I8 || T > 33)) {
            continue;
        }
        for (int n_threads : threads) {
            const auto y = multiply(w, act, T, buft, n_threads, nullptr, false, nullptr, nullptr, buft_scales);
            bool same = true;
            for (int64_t i = 0; i < m*T; ++i) {
                same &= y[i] == expected[i] || (std::isnan(y[i]) && std::isnan(expected[i]));
            }
            char name[160];
            snprintf(name, sizeof(name), "exact %s %s scales %s n=%d m=%d T=%d extreme=%d rest=%g threads=%d counts=%d", ggml_type_name(type), name_of(buft), name_of(buft_scales), (int) n, (int) m, (int) T, extreme, rest_share, n_threads, of_all);
            check(same, name);
        }
    }
}

// FNV-1a of the ordinary results from CPU_SPK: instruction sets of one processor family must give the same bits
static uint64_t fingerprint = 14695981039346656037ull;

static void add_to_fingerprint(const std::vector<float> & y) {
    const uint8_t * p = (const uint8_t *) y.data();
    for (size_t i = 0; i < y.size()*sizeof(float); ++i) {
        fingerprint = (fingerprint ^ p[i])*1099511628211ull;
    }
}

// float scales and thresholds as they come; 1e-6 leaves room for sums of some hundred float terms
static void test_ordinary(ggml_type type, int64_t n, int64_t m, int64_t T, ggml_spk_encoding encoding) {
    random_floats rnd(n + m + T);
    matrix w(type, n, m, rnd, 0, 0.01);
    w.scales = rnd.uniform(w.scales.size(), 1e-3f, 2e-2f);
    for (auto & s : w.scales) {
        s = type == GGML_TYPE_I8 ? s : w.has_minima() ? std::ldexp(std::rint(std::ldexp(s, 12)), -12) // times a minimum it is an fp16, too
                                                      : ggml_fp16_to_fp32(ggml_fp32_to_fp16(s));
    }
    std::fill(w.disk.begin(), w.disk.end(), 0);
    w.write_disk();

    tensors g;
    ggml_tensor * x   = ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, n, T);
    ggml_tensor * enc = ggml_spk_encode(g.ctx, x, 3.0f, encoding);
    g.alloc(buft_plain);
    auto data = rnd.normal(n*T);
    for (int64_t t = 0; t < T; ++t) {
        data[t*n + t % n] *= 200; // an outlier channel
    }
    memcpy(x->data, data.data(), ggml_nbytes(x));
    g.compute(enc, 1);
    const size_t row_size = ggml_spk_row_size(n);
    const std::vector<uint8_t> act((uint8_t *) enc->data, (uint8_t *) enc->data + T*row_size);

    std::vector<double> expected(m*T);
    std::vector<int32_t> s(n);
    for (int64_t t = 0; t < T; ++t) {
        const auto row = ggml_spk_row_get(&act[t*row_size], n);
        ggml_spk_row_counts(&act[t*row_size], n, s.data());
        for (int64_t r = 0; r < m; ++r) {
            for (int64_t i = 0; i < n; ++i) {
                expected[t*m + r] += (double) w.scales[(r*n + i)/w.group]*w.w[r*n + i]*s[i]*row.v_th*(encoding == GGML_SPK_Q8 ? row.scales[i/32] : 1.0f);
            }
        }
    }
    char name[160];
    snprintf(name, sizeof(name), "ordinary %s n=%d m=%d T=%d encoding=%d", ggml_type_name(type), (int) n, (int) m, (int) T, encoding);
    const auto plain = multiply(w, act, T, buft_plain, 1);
    check(max_error(plain, expected) < 1e-6, std::string(name) + " plain");
    check(multiply(w, act, T, buft_plain, 2) == plain, std::string(name) + " plain, same bits with 2 threads");
    if (m % 16 == 0) {
        const auto spk = multiply(w, act, T, buft_spk, 1);
        check(max_error(spk, expected) < 1e-6, std::string(name) + " CPU_SPK");
        add_to_fingerprint(spk);
        check(multiply(w, act, T, buft_spk, 3) == spk, std::string(name) + " CPU_SPK, same bits with 3 threads");
        std::vector<float> one_by_one;
        for (int64_t t = 0; t < T; ++t) {
            const auto y = multiply(w, std::vector<uint8_t>(&act[t*row_size], &act[t*row_size] + row_size), 1, buft_spk, 1);
            one_by_one.insert(one_by_one.end(), y.begin(), y.end());
        }
        check(one_by_one == spk, std::string(name) + " CPU_SPK, same bits one by one");
    }
}

static std::vector<float> swiglu(const std::vector<float> & gate, const std::vector<float> & y, int64_t m) {
    tensors g;
    ggml_tensor * a = ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, m, y.size()/m), * b = ggml_dup_tensor(g.ctx, a), * c = ggml_swiglu_split(g.ctx, a, b);
    g.alloc(buft_plain);
    memcpy(a->data, gate.data(), ggml_nbytes(a));
    memcpy(b->data, y.data(), ggml_nbytes(b));
    g.compute(c, 1);
    return std::vector<float>((float *) c->data, (float *) c->data + y.size());
}

// bias, relu, residual and gate in the product's pass: the bits of ggml_add, ggml_relu, ggml_add, ggml_swiglu_split
static void test_then(ggml_type type, int64_t m, int64_t T, int n_threads) {
    const int64_t n = 256;
    random_floats rnd(m + T);
    const matrix w(type, n, m, rnd, 0, 0.0);
    const auto x = rnd.normal(n*T), bias = rnd.normal(m), residual = rnd.normal(m*T), gate = rnd.normal(m*T, 4.0f);
    const size_t row_size = ggml_spk_row_size(n);
    std::vector<uint8_t> act(T*row_size);
    for (int64_t t = 0; t < T; ++t) {
        write_row(&act[t*row_size], counts_of_kind(RANDOM, n, rnd), 0.01f);
    }
    const auto plain = multiply(w, act, T, buft_plain, 1);
    for (auto buft : { buft_plain, buft_spk }) {
        for (int which = 0; which < 16; ++which) {
            if (buft == buft_spk && m % 16 != 0) {
                continue;
            }
            const bool has_bias = which & 1, relu = which & 2, has_residual = which & 4, gated = which & 8;
            const auto y = multiply(w, act, T, buft, n_threads, has_bias ? &bias : nullptr, relu, has_residual ? &residual : nullptr, gated ? &gate : nullptr);
            auto expected = buft == buft_plain ? plain : multiply(w, act, T, buft, 1);
            for (int64_t i = 0; i < m*T; ++i) {
                float & v = expected[i];
                v = has_bias ? v + bias[i % m] : v;
                v = relu && !(v > 0.0f) ? 0.0f : v;
                v = has_residual ? v + residual[i] : v;
            }
            expected = gated ? swiglu(gate, expected, m) : expected;
            char name[120];
            snprintf(name, sizeof(name), "then %s %s m=%d T=%d bias=%d relu=%d residual=%d gate=%d", ggml_type_name(type), name_of(buft), (int) m, (int) T, has_bias, relu, has_residual, gated);
            check(memcmp(y.data(), expected.data(), m*T*sizeof(float)) == 0, name);
        }
    }
}

static void test_support() {
    tensors tw, g;
    ggml_tensor * w   = ggml_new_tensor_2d(tw.ctx, GGML_TYPE_Q4_0, 64, 16);
    ggml_tensor * odd = ggml_new_tensor_2d(tw.ctx, GGML_TYPE_Q4_0, 64, 17);
    ggml_tensor * f16 = ggml_new_tensor_2d(tw.ctx, GGML_TYPE_F16,  64, 16);
    tw.alloc(buft_spk);
    ggml_tensor * act = ggml_new_tensor_2d(g.ctx, GGML_TYPE_I8, ggml_spk_row_size(64), 2);
    ggml_tensor * x   = ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, 64, 2);
    check( ggml_backend_supports_op(cpu, ggml_spk_mul_mat(g.ctx, w,   nullptr, nullptr, nullptr, act)), "CPU_SPK takes SPK_MUL_MAT");
    check(!ggml_backend_supports_op(cpu, ggml_spk_mul_mat(g.ctx, odd, nullptr, nullptr, nullptr, act)), "CPU_SPK refuses rows that are no multiple of 16");
    check(!ggml_backend_supports_op(cpu, ggml_mul_mat(g.ctx, w,   x)), "CPU_SPK refuses MUL_MAT");
    check(!ggml_backend_supports_op(cpu, ggml_mul_mat(g.ctx, f16, x)), "CPU_SPK refuses other types");
}

int main() {
    find_buffer_types();
    auto isa = (ggml_spk_isa_t) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu)), "ggml_spk_isa");

    test_support();

    for (int64_t n : { 32, 64, 96, 160, 1024, 2080 }) {
        test_encode(n, 2*N_KINDS, 3.0f, 1);
        test_encode(n, N_KINDS, 4.0f, 2);
    }
    for (int64_t n : { 32, 160, 1024, 2080 }) {
        test_encode_norm(n, n,    1,           1);
        test_encode_norm(n, n,    2*N_KINDS,   1);
        test_encode_norm(n, n/2,  N_KINDS,     2);
        test_encode_norm(n, 16,   N_KINDS + 3, 3);
    }
    for (float k : { 0.01f, 2.5f, 40.0f, 1e6f }) {
        test_encode(256, N_KINDS, k, 1);
    }

    for (ggml_type type : { GGML_TYPE_I8, GGML_TYPE_Q8_0, GGML_TYPE_Q5_0, GGML_TYPE_Q4_0, GGML_TYPE_Q5_1, GGML_TYPE_Q4_1, GGML_TYPE_IQ4_NL }) {
        const int64_t group = type == GGML_TYPE_I8 ? 128 : 32;
        for (int64_t m = 1; m <= 48; ++m) {
            test_exact(type, 128, m, 1, 0, 0.03, { 1 });
            test_exact(type, 256, m, m % 13 + 1, 0, m % 2 ? 0.03 : 0.0, { 1 });
        }
        for (int64_t n = group; n <= 12*group; n += group) {
            test_exact(type, n, 32, 1, 0, 0.0, { 1 });
            test_exact(type, n, 19, 9, 0, 0.03, { 1 });
            test_exact(type, n, 16, 7, 0, 0.03, { 1 });
        }
        for (int64_t T = 1; T <= 40; ++T) {
            test_exact(type, 128, 48, T, 0, T % 3 ? 0.03 : 0.0, { 1 });
        }
        for (int extreme : { 1, 2 }) {
            test_exact(type, 1024, 16, 2, extreme, 0.0, { 1 });
            test_exact(type, 1024, 32, 9, extreme, 0.0, { 1 });
        }
        for (int kind : { SMALL, MOST, LEAST, EITHER, BEYOND, STEPS_UP, STEPS_DOWN }) {
            for (int extreme : { 0, 1, 2 }) {
                test_exact(type, 1024, 32, 51, extreme, 0.0, { 1 }, kind); // 32 tokens and 19
            }
        }
        test_exact(type, 256, 80, 1,  0, 0.03, { 2, 3, 4 });
        test_exact(type, 256, 80, 20, 0, 0.03, { 2, 3, 4 });
        test_exact(type, 512, 528, 67, 0, 0.01, { 1, 2 });
        test_exact(type, 1024, 1040, 1, 0, 0.0, { 2 }); // loaded by several threads, in shares of which the last is smaller
        test_then(type, 48, 1,  1);
        test_then(type, 64, 11, 2);
        test_then(type, 21, 3,  1);
        for (ggml_spk_encoding encoding : { GGML_SPK_SPIKE, GGML_SPK_Q8 }) {
            test_ordinary(type, 1152, 48, 1,  encoding);
            test_ordinary(type, 384,  37, 11, encoding);
            test_ordinary(type, 640,  32, 6,  encoding);
            test_ordinary(type, 2048, 64, 13, encoding);
            test_ordinary(type, group == 32 ? 1056 : 1152, 48, 31, encoding);
            test_ordinary(type, group == 32 ? 1056 : 1152, 48, 40, encoding); // several batches, more columns than are unpacked at a time
        }
    }
    ggml_backend_free(cpu);
    printf("fingerprint %016llx\n", (unsigned long long) fingerprint);
    return report((std::string("spk-matmul ") + isa()).c_str());
}
