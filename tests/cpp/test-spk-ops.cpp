// The attention operators against plain loops in double: every tail length, group size, ring position and
// thread count. Float sums of n terms are off by at most n*2^-24 of the sum of magnitudes; the bounds below
// leave a factor of a few for the softmax and the recurrence.

#include "check.h"

#include "ggml.h"
#include "ggml-cpu.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <cstring>

static const double BOUND = 2e-5;

struct graph {
    ggml_context * ctx;

    graph() : ctx(ggml_init({ 256u << 20, nullptr, false })) {}
    ~graph() { ggml_free(ctx); }

    template <typename T>
    ggml_tensor * tensor(ggml_type type, std::vector<int64_t> ne, const std::vector<T> & data) {
        ggml_tensor * t = ggml_new_tensor(ctx, type, ne.size(), ne.data());
        GGML_ASSERT(ggml_nbytes(t) == data.size()*sizeof(T));
        memcpy(t->data, data.data(), ggml_nbytes(t));
        return t;
    }

    std::vector<float> run(ggml_tensor * t, int n_threads) {
        ggml_cgraph * gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, t);
        ggml_graph_compute_with_ctx(ctx, gf, n_threads);
        return std::vector<float>((float *) t->data, (float *) t->data + ggml_nelements(t));
    }
};

//
// gated linear attention
//

static void test_gla(int64_t d, int64_t n_head, int64_t n_kv, int64_t n_tok, int64_t n_seqs) {
    random_floats rnd(d*1000 + n_head*100 + n_tok);
    const int64_t T = n_tok*n_seqs, n_rows = 2*n_seqs + 1, n_group = n_head/n_kv;
    const auto q = rnd.uniform(d*n_head*T, 0, 1), k = rnd.uniform(d*n_kv*T, 0, 1), v = rnd.normal(d*n_kv*T);
    const auto w = rnd.uniform(d*n_kv*T, 0.8f, 1.0f), state = rnd.normal(d*d*n_kv*n_rows);

    // sequence s goes from row 2s (the last one from nothing) to row 2s + 1
    std::vector<int32_t> seqs;
    for (int64_t s = 0; s < n_seqs; ++s) {
        seqs.insert(seqs.end(), { s == n_seqs - 1 ? -1 : (int32_t) (2*s), (int32_t) (2*s + 1), 0, 0 });
    }
    const float scale = 1.0f/sqrtf(d);

    std::vector<double> o(d*n_head*T), S_all(state.begin(), state.end());
    for (int64_t s = 0; s < n_seqs; ++s) {
        for (int64_t h = 0; h < n_kv; ++h) {
            const double * from = seqs[4*s] < 0 ? nullptr : &S_all[(seqs[4*s]*n_kv + h)*d*d];
            double       * S    = &S_all[(seqs[4*s + 1]*n_kv + h)*d*d];
            for (int64_t i = 0; i < d*d; ++i) {
                S[i] = from ? from[i] : 0.0;
            }
            for (int64_t t = s*n_tok; t < (s + 1)*n_tok; ++t) {
                for (int64_t i = 0; i < d; ++i) {
                    for (int64_t j = 0; j < d; ++j) {
                        S[i*d + j] = S[i*d + j]*w[(t*n_kv + h)*d + i] + (double) k[(t*n_kv + h)*d + i]*v[(t*n_kv + h)*d + j];
                    }
                }
                for (int64_t r = 0; r < n_group; ++r) {
                    for (int64_t i = 0; i < d; ++i) {
                        for (int64_t j = 0; j < d; ++j) {
                            o[(t*n_head + h*n_group + r)*d + j] += (double) q[(t*n_head + h*n_group + r)*d + i]*S[i*d + j]*scale;
                        }
                    }
                }
            }
        }
    }

    std::vector<float> first;
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
        graph g;
        ggml_tensor * st = g.tensor(GGML_TYPE_F32, { d*d*n_kv, n_rows }, state);
        auto out = g.run(ggml_spk_gla(g.ctx,
            g.tensor(GGML_TYPE_F32, { d, n_head, T }, q), g.tensor(GGML_TYPE_F32, { d, n_kv, T }, k), g.tensor(GGML_TYPE_F32, { d, n_kv, T }, v),
            g.tensor(GGML_TYPE_F32, { d, n_kv, T }, w), st, g.tensor(GGML_TYPE_I32, { 4, n_seqs }, seqs), scale), n_threads);

        char name[128];
        snprintf(name, sizeof(name), "gla d=%d heads=%d/%d tokens=%d seqs=%d threads=%d", (int) d, (int) n_head, (int) n_kv, (int) n_tok, (int) n_seqs, n_threads);
        check(max_error(out, o) < BOUND, std::string(name) + " output");
        check(max_error(std::vector<float>((float *) st->data, (float *) st->data + ggml_nelements(st)), S_all) < BOUND, std::string(name) + " state, rows of others untouched");
        if (n_threads == 1) {
            first = out;
        }
        check(out == first, std::string(name) + " same bits as with one thread");
    }
}

//
// window attention
//

static void test_swa(ggml_type type, int64_t d, int64_t n_head, int64_t n_kv, int64_t n_tok, int64_t n_seqs, int32_t window, int32_t n_ring, int32_t pos0, int32_t first) {
    random_floats rnd(d*1000 + n_head*100 + n_tok + pos0);
    const int64_t T = n_tok*n_seqs, n_slots = n_seqs + 1, n_group = n_head/n_kv;
    const auto q = rnd.normal(d*n_head*T, 2.0f);
    auto k = rnd.normal(d*n_ring*n_slots*n_kv), v = rnd.normal(d*n_ring*n_slots*n_kv);

    std::vector<ggml_fp16_t> k16(k.size()), v16(v.size());
    if (type == GGML_TYPE_F16) {
        ggml_fp32_to_fp16_row(k.data(), k16.data(), k.size());
        ggml_fp32_to_fp16_row(v.data(), v16.data(), v.size());
        ggml_fp16_to_fp32_row(k16.data(), k.data(), k.size());
        ggml_fp16_to_fp32_row(v16.data(), v.data(), v.size());
    }

    std::vector<int32_t> seqs, pos;
    for (int64_t s = 0; s < n_seqs; ++s) {
        seqs.insert(seqs.end(), { 0, 0, (int32_t) (n_seqs - s), first }); // slots in reverse, slot 0 unused
        for (int64_t t = 0; t < n_tok; ++t) {
            pos.push_back(pos0 + 3*s + t);
        }
    }
    const float scale = 1.0f/sqrtf(d);

    std::vector<double> o(d*n_head*T);
    for (int64_t t = 0; t < T; ++t) {
        const int64_t slot = seqs[t/n_tok*4 + 2];
        for (int64_t h = 0; h < n_head; ++h) {
            auto row = [&](const std::vector<float> & x, int64_t p) { return &x[(h/n_group*n_ring*n_slots + slot*n_ring + p % n_ring)*d]; };
            const int64_t lo = std::max<int64_t>(first, (int64_t) pos[t] - window + 1);
            std::vector<double> s;
            for (int64_t p = lo; p <= pos[t]; ++p) {
                double dot = 0;
                for (int64_t i = 0; i < d; ++i) {
                    dot += (double) q[(t*n_head + h)*d + i]*row(k, p)[i];
                }
                s.push_back(dot*scale);
            }
            const double max = *std::max_element(s.begin(), s.end());
            double sum = 0;
            for (auto & x : s) {
                sum += x = std::exp(x - max);
            }
            for (size_t p = 0; p < s.size(); ++p) {
                for (int64_t i = 0; i < d; ++i) {
                    o[(t*n_head + h)*d + i] += s[p]/sum*row(v, lo + p)[i];
                }
            }
        }
    }

    std::vector<float> one;
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
        graph g;
        auto ring = [&](const std::vector<float> & x, const std::vector<ggml_fp16_t> & x16) {
            const std::vector<int64_t> ne = { d, n_ring*n_slots, n_kv };
            return type == GGML_TYPE_F16 ? g.tensor(type, ne, x16) : g.tensor(type, ne, x);
        };
        auto out = g.run(ggml_spk_swa(g.ctx, g.tensor(GGML_TYPE_F32, { d, n_head, T }, q), ring(k, k16), ring(v, v16),
            g.tensor(GGML_TYPE_I32, { T }, pos), g.tensor(GGML_TYPE_I32, { 4, n_seqs }, seqs), n_ring, window, scale), n_threads);

        char name[160];
        snprintf(name, sizeof(name), "swa %s d=%d heads=%d/%d tokens=%d seqs=%d window=%d ring=%d pos=%d first=%d threads=%d",
            ggml_type_name(type), (int) d, (int) n_head, (int) n_kv, (int) n_tok, (int) n_seqs, window, n_ring, pos0, first, n_threads);
        check(max_error(out, o) < BOUND, name);
        if (n_threads == 1) {
            one = out;
        }
        check(out == one, std::string(name) + " same bits as with one thread");
    }
}

//
// rotary
//

static void test_rope(int64_t d, int64_t n_head, int64_t T) {
    random_floats rnd(d + T);
    const auto x = rnd.normal(d*n_head*T);
    std::vector<float>  table(d*T);
    std::vector<double> y(x.size());
    for (int64_t t = 0; t < T; ++t) {
        for (int64_t i = 0; i < d/2; ++i) {
            const double a = 12345.0*t/(i + 1.0);
            table[t*d + i]       = std::cos(a);
            table[t*d + d/2 + i] = std::sin(a);
            for (int64_t h = 0; h < n_head; ++h) {
                const int64_t j = (t*n_head + h)*d + i;
                y[j]       = x[j]*std::cos(a) - x[j + d/2]*std::sin(a);
                y[j + d/2] = x[j + d/2]*std::cos(a) + x[j]*std::sin(a);
            }
        }
    }
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
        graph g;
        check(max_error(g.run(ggml_spk_rope(g.ctx, g.tensor(GGML_TYPE_F32, { d, n_head, T }, x), g.tensor(GGML_TYPE_F32, { d, T }, table)), n_threads), y) < 1e-6, "rope");
    }
}

int main() {
    for (int64_t d : { 2, 6, 16, 18, 30, 32, 40, 48, 64, 80, 128 }) {
        test_gla(d, 4, 2, 5, 2);
        test_swa(GGML_TYPE_F32, d, 4, 2, 5, 2, 7, 12, 30, 0);
        test_swa(GGML_TYPE_F16, d, 4, 2, 1, 2, 7, 12, 30, 0);
        test_rope(d, 3, 4);
    }
    for (int64_t n_group = 1; n_group <= 17; ++n_group) {
        test_gla(32, 2*n_group, 2, 3, 1);
        test_swa(GGML_TYPE_F16, 32, 2*n_group, 2, 3, 1, 9, 12, 4, 0);
    }
    for (int64_t n_tok = 1; n_tok <= 40; ++n_tok) {
        test_gla(20, 2, 1, n_tok, 3);
        test_swa(GGML_TYPE_F32, 20, 2, 1, n_tok, 3, 24, 24 + 40, 10*n_tok, 0);
    }
    // windows of one key, of several decode chunks; a sequence that begins late; the ring about to wrap
    test_swa(GGML_TYPE_F16, 64, 7, 1,   1, 1,    1,    2,    9,    0);
    test_swa(GGML_TYPE_F16, 64, 7, 1,   1, 3, 1500, 1600, 4000,    0);
    test_swa(GGML_TYPE_F32, 64, 4, 2,   1, 2, 1500, 1600, 4000, 3990);
    test_swa(GGML_TYPE_F16, 64, 4, 2, 100, 1, 1500, 1600, 3150,    0);
    test_swa(GGML_TYPE_F16, 64, 4, 2, 100, 1, 1500, 1600,    0,    0);
    test_swa(GGML_TYPE_F32, 64, 4, 2,  33, 2,  100,  150, 2000000000, 1999999950);
    return report("spk-ops");
}
