// What parallel layers and a mixture of experts need: sinks in window attention, keys and decays, the router's choice, the product with
// chosen experts. Against plain loops; the product against that of single matrices, which is exact, with the same bits where they are promised.

#include "check.h"
#include "cpu.h"

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <cstring>

//
// sinks
//

// A query sees all m sinks, behind the ring's rows, and the last `window` positions of its sequence from `first` on
static void test_sinks(int64_t d, int64_t n_head, int64_t n_kv, int64_t m, int32_t window, int32_t n_ring, int32_t pos0, int64_t n_tok, ggml_type type) {
    random_floats rnd(d + m + pos0 + n_tok);
    const int64_t n_slots = 2, n_rows = n_ring*n_slots + m, n_group = n_head/n_kv;
    const auto q = rnd.normal(d*n_head*n_tok, 2.0f);
    auto k = rnd.normal(d*n_rows*n_kv), v = rnd.normal(d*n_rows*n_kv);
    std::vector<uint8_t> bytes[2];
    std::vector<float> * values[2] = { &k, &v };
    for (int i = 0; i < 2; ++i) {
        bytes[i].assign((uint8_t *) values[i]->data(), (uint8_t *) (values[i]->data() + values[i]->size()));
        if (type == GGML_TYPE_F16) {
            bytes[i].resize(values[i]->size()*2);
            ggml_fp32_to_fp16_row(values[i]->data(), (ggml_fp16_t *) bytes[i].data(), values[i]->size());
            ggml_fp16_to_fp32_row((ggml_fp16_t *) bytes[i].data(), values[i]->data(), values[i]->size());
        }
    }
    std::vector<int32_t> pos;
    for (int64_t t = 0; t < n_tok; ++t) {
        pos.push_back(pos0 + t);
    }
    const float scale = 1.0f/sqrtf(d);
    std::vector<double> want(d*n_head*n_tok);
    for (int64_t t = 0; t < n_tok; ++t) {
        for (int64_t h = 0; h < n_head; ++h) {
            std::vector<int64_t> rows;
            for (int64_t j = 0; j < m; ++j) {
                rows.push_back(n_ring*n_slots + j);
            }
            for (int64_t p = std::max(0, pos[t] - window + 1); p <= pos[t]; ++p) {
                rows.push_back(n_ring + p % n_ring); // slot 1
            }
            double max = -INFINITY, sum = 0;
            std::vector<double> s;
            for (int64_t row : rows) {
                double dot = 0;
                for (int64_t i = 0; i < d; ++i) {
                    dot += (double) q[(t*n_head + h)*d + i]*k[((h/n_group)*n_rows + row)*d + i];
                }
                s.push_back(dot*scale);
                max = std::max(max, s.back());
            }
            for (double & x : s) {
                sum += x = std::exp(x - max);
            }
            for (size_t r = 0; r < rows.size(); ++r) {
                for (int64_t i = 0; i < d; ++i) {
                    want[(t*n_head + h)*d + i] += s[r]/sum*v[((h/n_group)*n_rows + rows[r])*d + i];
                }
            }
        }
    }
    std::vector<float> one;
    for (int n_threads : { 1, 2 }) {
        graph g;
        ggml_tensor * out = ggml_spk_swa(g.ctx, g.tensor(GGML_TYPE_F32, { d, n_head, n_tok }, q), g.tensor(type, { d, n_rows, n_kv }, bytes[0]), g.tensor(type, { d, n_rows, n_kv }, bytes[1]),
            g.tensor(GGML_TYPE_I32, { n_tok }, pos), g.tensor(GGML_TYPE_I32, { GGML_SPK_SEQ_N_INFO, 1 }, std::vector<int32_t>{ 0, 1, 0 }), n_ring, window, scale, 0.0f);
        ggml_spk_swa_sinks(out, m);
        const auto got = g.run(out, n_threads);
        char name[128];
        snprintf(name, sizeof(name), "sinks %s d=%d heads=%d/%d m=%d window=%d ring=%d pos=%d tokens=%d threads=%d", ggml_type_name(type), (int) d, (int) n_head, (int) n_kv, (int) m, window, n_ring, pos0, (int) n_tok, n_threads);
        check(max_error(got, want) < 2e-5, name);
        one = n_threads == 1 ? got : one;
        check(got == one, std::string(name) + " same bits as with one thread");
    }
}

//
// keys and decays, the router's choice
//

static void test_key(int64_t d, int64_t n_head, int64_t n_kv, int64_t n_tok, bool bounded) {
    random_floats rnd(d + n_head);
    auto z = rnd.normal(d*n_kv*n_tok, 4.0f);
    z[0] = 120.0f, z[1] = -120.0f, z[2] = 30.0f;
    const auto bound = rnd.uniform(d*n_head, 0.0f, 1.0f);
    const int64_t heads = bounded ? n_head : n_kv, n_group = heads/n_kv, n = d*heads*n_tok;
    const double k_max = 0.95f;
    std::vector<double> want(2*n);
    for (int64_t t = 0; t < n_tok; ++t) {
        for (int64_t h = 0; h < heads; ++h) {
            for (int64_t i = 0; i < d; ++i) {
                const double x = z[(t*n_kv + h/n_group)*d + i], yes = 1/(1 + std::exp(-x)), no = 1/(1 + std::exp(x)), c = bound[h*d + i];
                want[(t*heads + h)*d + i]     = bounded ? c*yes : std::min(yes, k_max);
                want[(t*heads + h)*d + i + n] = bounded ? 1 - c + c*no : std::max(no, 1 - k_max);
            }
        }
    }
    graph g;
    ggml_tensor * out = ggml_spk_key(g.ctx, g.tensor(GGML_TYPE_F32, { d, n_kv, n_tok }, z), bounded ? g.tensor(GGML_TYPE_F32, { d*n_head }, bound) : nullptr, 0.95f);
    check(out->ne[1] == heads && out->ne[3] == 2, "key: shape");
    check(max_error(g.run(out, 2), want) < 3e-7, "key d=" + std::to_string(d) + (bounded ? " bounded" : ""));
}

static void test_top1() {
    graph g;
    const std::vector<float> x = { 1, 3, 2,   5, 5, 5,   -1, -3, -1,   -INFINITY, -INFINITY, -INFINITY,   NAN, NAN, NAN,   0, 1, 1 };
    ggml_tensor * out = ggml_spk_top1(g.ctx, g.tensor(GGML_TYPE_F32, { 3, 6 }, x));
    g.run(out, 2);
    const int32_t * ids = (const int32_t *) out->data;
    check(std::vector<int32_t>(ids, ids + 6) == std::vector<int32_t>{ 1, 0, 0, 0, 0, 1 }, "top1: the largest, the first of equal ones");
}

//
// the product with chosen experts
//

struct product {
    ggml_context        * ctx = ggml_init({ 4u << 20, nullptr, true });
    ggml_context        * ctx_w = ggml_init({ 1u << 20, nullptr, true });
    ggml_backend_buffer_t buf = nullptr, buf_w = nullptr;

    ~product() {
        ggml_backend_buffer_free(buf);
        ggml_backend_buffer_free(buf_w);
        ggml_free(ctx);
        ggml_free(ctx_w);
    }
};

static void test_product(ggml_type type, bool interleaved, ggml_spk_encoding encoding, int64_t n, int64_t m, int64_t n_expert, int64_t T, bool all_one) {
    random_floats rnd(n + m + T + type);
    product p;
    const bool int8 = type == GGML_TYPE_I8;
    ggml_tensor * w      = ggml_new_tensor_3d(p.ctx_w, type, n, m, n_expert);
    ggml_tensor * scales = int8 ? ggml_new_tensor_3d(p.ctx, GGML_TYPE_F32, n/128, m, n_expert) : nullptr;

    std::vector<uint8_t> disk(ggml_nbytes(w));
    std::vector<int32_t> rest_index;
    if (int8) {
        for (size_t i = 0; i < disk.size(); ++i) {
            disk[i] = (uint8_t) (rnd.rng() % 255 - 127);
            if (rnd.rng() % 200 == 0) {
                rest_index.push_back(i);
            }
        }
    } else {
        const auto x = rnd.normal(n*m*n_expert);
        ggml_quantize_chunk(type, x.data(), disk.data(), 0, m*n_expert, n, nullptr);
    }
    ggml_tensor * index = int8 ? ggml_new_tensor_1d(p.ctx, GGML_TYPE_I32, rest_index.size()) : nullptr;
    ggml_tensor * value = int8 ? ggml_new_tensor_1d(p.ctx, GGML_TYPE_I16, rest_index.size()) : nullptr;
    ggml_tensor * x   = ggml_new_tensor_2d(p.ctx, GGML_TYPE_F32, n, T), * ids = ggml_new_tensor_2d(p.ctx, GGML_TYPE_I32, 1, T);
    ggml_tensor * weights = ggml_new_tensor_3d(p.ctx, GGML_TYPE_F32, 1, 1, T), * residual = ggml_new_tensor_2d(p.ctx, GGML_TYPE_F32, m, T);
    ggml_tensor * act = ggml_spk_encode(p.ctx, x, 3.0f, encoding);
    ggml_tensor * out = ggml_spk_mul_mat_id(p.ctx, w, scales, index, value, act, ids), * then = ggml_spk_mul_mat_id(p.ctx, w, scales, index, value, act, ids);
    ggml_spk_mul_mat_id_then(then, weights, residual);

    const std::vector<int32_t> chosen = [&] {
        std::vector<int32_t> c;
        for (int64_t t = 0; t < T; ++t) {
            c.push_back(all_one ? n_expert - 1 : rnd.rng() % n_expert);
        }
        return c;
    }();
    // of each token: the product with its expert's matrix, whose rest is indexed from its own first code on
    std::vector<ggml_tensor *> single, own_index, own_value;
    std::vector<std::pair<size_t, size_t>> rest(n_expert);
    for (int64_t e = 0; e < n_expert; ++e) {
        rest[e] = { std::lower_bound(rest_index.begin(), rest_index.end(), (int32_t) (e*n*m)) - rest_index.begin(), std::lower_bound(rest_index.begin(), rest_index.end(), (int32_t) ((e + 1)*n*m)) - rest_index.begin() };
        own_index.push_back(int8 ? ggml_new_tensor_1d(p.ctx, GGML_TYPE_I32, rest[e].second - rest[e].first) : nullptr);
        own_value.push_back(int8 ? ggml_new_tensor_1d(p.ctx, GGML_TYPE_I16, rest[e].second - rest[e].first) : nullptr);
    }
    for (int64_t t = 0; t < T; ++t) {
        const int32_t e = chosen[t];
        single.push_back(ggml_spk_mul_mat(p.ctx, ggml_view_2d(p.ctx, w, n, m, w->nb[1], e*w->nb[2]), int8 ? ggml_view_2d(p.ctx, scales, n/128, m, scales->nb[1], e*scales->nb[2]) : nullptr,
            own_index[e], own_value[e], ggml_view_2d(p.ctx, act, act->ne[0], 1, act->nb[1], t*act->nb[1])));
    }
    p.buf_w = ggml_backend_alloc_ctx_tensors_from_buft(p.ctx_w, interleaved ? spk_buffer_type() : ggml_backend_cpu_buffer_type());
    p.buf   = ggml_backend_alloc_ctx_tensors_from_buft(p.ctx, ggml_backend_cpu_buffer_type());
    for (ggml_tensor * t = ggml_get_first_tensor(p.ctx); t != nullptr; t = ggml_get_next_tensor(p.ctx, t)) {
        if (t->view_src && !t->buffer) {
            ggml_backend_view_init(t);
        }
    }

    ggml_backend_tensor_set(w, disk.data(), 0, disk.size());
    auto values = rnd.normal(n*T);
    for (int64_t t = 0; t < T; t += 3) {
        values[t*n + 5] *= 900.0f; // counts beyond int8
    }
    memcpy(x->data, values.data(), ggml_nbytes(x));
    memcpy(ids->data, chosen.data(), ggml_nbytes(ids));
    const auto p_expert = rnd.uniform(T, 0.2f, 1.0f), old = rnd.normal(m*T);
    memcpy(weights->data, p_expert.data(), ggml_nbytes(weights));
    memcpy(residual->data, old.data(), ggml_nbytes(residual));
    if (int8) {
        const auto s = rnd.uniform(ggml_nelements(scales), 0.001f, 0.01f);
        memcpy(scales->data, s.data(), ggml_nbytes(scales));
        std::vector<int16_t> v;
        for (size_t i = 0; i < rest_index.size(); ++i) {
            v.push_back((int16_t) (rnd.rng() % 140) - 70);
        }
        memcpy(index->data, rest_index.data(), ggml_nbytes(index));
        memcpy(value->data, v.data(), ggml_nbytes(value));
        for (int64_t e = 0; e < n_expert; ++e) {
            for (size_t i = rest[e].first; i < rest[e].second; ++i) {
                ((int32_t *) own_index[e]->data)[i - rest[e].first] = rest_index[i] - e*n*m;
                ((int16_t *) own_value[e]->data)[i - rest[e].first] = v[i];
            }
        }
    }
    const auto run = [&](ggml_tensor * t, int n_threads) {
        ggml_cgraph * gf = ggml_new_graph_custom(p.ctx, 16, false);
        ggml_build_forward_expand(gf, t);
        cpu_compute(gf, n_threads);
        return std::vector<float>((float *) t->data, (float *) t->data + ggml_nelements(t));
    };
    std::vector<double> want, want_then;
    for (int64_t t = 0; t < T; ++t) {
        for (float y : run(single[t], 1)) {
            want_then.push_back((double) y*p_expert[t] + old[want.size()]);
            want.push_back(y);
        }
    }
    char name[160];
    snprintf(name, sizeof(name), "experts %s %s %s n=%d m=%d experts=%d tokens=%d%s", ggml_type_name(type), interleaved ? "interleaved" : "plain", encoding == GGML_SPK_SPIKE ? "spikes" : "q8",
        (int) n, (int) m, (int) n_expert, (int) T, all_one ? " all of one" : "");
    for (int n_threads : { 1, 2 }) {
        const auto got = run(out, n_threads);
        check(max_error(got, want) < (interleaved ? 1e-30 : 1e-5), std::string(name) + " threads=" + std::to_string(n_threads));
        check(max_error(run(then, n_threads), want_then) < (interleaved ? 1e-6 : 1e-5), std::string(name) + " then, threads=" + std::to_string(n_threads));
    }
}

int main() {
    for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16 }) {
        for (int64_t n_tok : { 1, 3, 11 }) {
            test_sinks(32, 8, 2, 8, 24, 40, 0, n_tok, type);
            test_sinks(32, 8, 2, 5, 24, 40, 100, n_tok, type);
            test_sinks(20, 4, 4, 70, 7, 30, 50, n_tok, type);
            test_sinks(64, 4, 1, 128, 700, 711, 1300, n_tok, type); // several chunks
            test_sinks(32, 2, 1, 0, 600, 611, 1300, n_tok, type);
        }
    }
    test_key(16, 4, 2, 5, true);
    test_key(16, 4, 2, 5, false);
    test_key(20, 3, 3, 1, true);
    test_top1();
    for (ggml_type type : { GGML_TYPE_Q4_0, GGML_TYPE_Q5_0, GGML_TYPE_Q8_0, GGML_TYPE_I8, GGML_TYPE_Q4_1, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL }) {
        for (bool interleaved : { false, true }) {
            for (ggml_spk_encoding encoding : { GGML_SPK_SPIKE, GGML_SPK_Q8 }) {
                for (int64_t T : { 1, 2, 40 }) {
                    test_product(type, interleaved, encoding, 256, 48, 4, T, false);
                }
                test_product(type, interleaved, encoding, 128, 1040, 3, 9, true); // several chunks
                if (!interleaved) {
                    test_product(type, false, encoding, 128, 21, 5, 30, false); // rows left over
                }
            }
        }
    }
    return report("spk-experts");
}
