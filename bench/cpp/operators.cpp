// Single operators and the matrix products of a decode step, as graphs of their own over random data.

#include "operators.h"

#include "threads.h"

#include "ggml-alloc.h"
#include "ggml-cpu.h"
#ifdef SB_BENCH_SPIKINGBRAIN
#include "ggml-spikingbrain.h"
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

struct operator_bench::graph {
    ggml_backend_t backend = nullptr;
    thread_pool    pool;
    ggml_context * ctx_w = ggml_init({ 1 << 20, nullptr, true }); // weights
    ggml_context * ctx   = ggml_init({ 4 << 20, nullptr, true }); // everything else
    ggml_backend_buffer_t buf_w = nullptr, buf = nullptr;
    ggml_cgraph * gf = ggml_new_graph(ctx);
    uint64_t rng = 3;
    double bytes = 0, ops = 0; // one execution: what it must read, multiplications and additions

    explicit graph(int n_threads) : pool(n_threads) {
        backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
        ggml_backend_cpu_set_n_threads(backend, n_threads);
        ggml_backend_cpu_set_threadpool(backend, pool.pool);
    }
    ~graph() {
        ggml_backend_free(backend);
        ggml_backend_buffer_free(buf_w);
        ggml_backend_buffer_free(buf);
        ggml_free(ctx_w);
        ggml_free(ctx);
    }

    ggml_tensor * weight(ggml_type type, int64_t n, int64_t m) {
        ggml_tensor * w = ggml_new_tensor_2d(ctx_w, type, n, m);
        bytes += ggml_nbytes(w);
        return w;
    }
    ggml_tensor * f32(int64_t a, int64_t b = 1, int64_t c = 1) { return ggml_new_tensor_3d(ctx, GGML_TYPE_F32, a, b, c); }

    // the node that reads weight w can run with it in this buffer type
    bool runs_in(ggml_backend_dev_t dev, ggml_backend_buffer_type_t buft, ggml_tensor * w) const {
        ggml_tensor * node = nullptr;
        for (int i = 0; i < ggml_graph_n_nodes(gf); ++i) {
            node = ggml_graph_node(gf, i)->src[0] == w ? ggml_graph_node(gf, i) : node;
        }
        w->buffer = ggml_backend_buft_alloc_buffer(buft, 0);
        const bool ok = node && ggml_backend_dev_supports_op(dev, node);
        ggml_backend_buffer_free(w->buffer);
        w->buffer = nullptr;
        return ok;
    }

    // interleaved rows where the CPU has them for this type, as the model loader chooses
    ggml_backend_buffer_type_t buffer_type(const char * name) const {
        ggml_backend_dev_t dev = ggml_backend_get_device(backend);
        auto extra = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), "ggml_backend_dev_get_extra_bufts");
        for (auto * buft = extra ? extra(dev) : nullptr; buft && *buft; ++buft) {
            if (strcmp(ggml_backend_buft_name(*buft), name) == 0 && runs_in(dev, *buft, ggml_get_first_tensor(ctx_w))) {
                return *buft;
            }
        }
        return ggml_backend_get_default_buffer_type(backend);
    }

    float normal() { // sum of 12 uniform numbers: close enough
        float s = -6;
        for (int i = 0; i < 12; ++i) {
            s += (rng_next(rng) >> 40)*0x1p-24f;
        }
        return s;
    }

    // where a block of a quantised type has its half precision scale: at first, some K-quants at last
    static size_t scale_at(ggml_type type) {
        return type == GGML_TYPE_Q2_K ? ggml_type_size(type) - 4 : type == GGML_TYPE_Q3_K || type == GGML_TYPE_Q6_K ? ggml_type_size(type) - 2 : 0;
    }

    // random codes
    void set_random(ggml_tensor * t) {
        const size_t size = ggml_nbytes(t), block = ggml_type_size(t->type);
        std::vector<uint8_t> data(size);
        if (t->type == GGML_TYPE_F32) {
            for (size_t i = 0; i < size/4; ++i) {
                const float v = normal();
                memcpy(data.data() + 4*i, &v, 4);
            }
        } else {
            for (size_t i = 0; i + 8 <= size; i += 8) {
                const uint64_t v = rng_next(rng);
                memcpy(data.data() + i, &v, 8);
            }
            const ggml_fp16_t scale = ggml_fp32_to_fp16(0.002f);
            const bool minima = t->type == GGML_TYPE_Q2_K || t->type == GGML_TYPE_Q4_K || t->type == GGML_TYPE_Q5_K || t->type == GGML_TYPE_Q4_1 || t->type == GGML_TYPE_Q5_1; // theirs behind the scale
            for (size_t i = scale_at(t->type); t->type != GGML_TYPE_I8 && i < size; i += block) {
                memcpy(data.data() + i, &scale, 2);
                if (minima) {
                    memcpy(data.data() + i + 2, &scale, 2);
                }
            }
        }
        ggml_backend_tensor_set(t, data.data(), 0, size);
    }

    // after the graph's tensors are declared
    void allocate(const char * weights_in) {
        if (ggml_get_first_tensor(ctx_w)) {
            buf_w = ggml_backend_alloc_ctx_tensors_from_buft(ctx_w, buffer_type(weights_in));
        }
        buf = ggml_backend_alloc_ctx_tensors(ctx, backend);
        if (!buf || (ggml_get_first_tensor(ctx_w) && !buf_w)) {
            fail("op_build: got no memory, expected " + std::to_string((size_t) bytes) + " bytes");
        }
        for (ggml_tensor * t = ggml_get_first_tensor(ctx_w); t; t = ggml_get_next_tensor(ctx_w, t)) {
            set_random(t);
        }
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
            if (t->op == GGML_OP_NONE && t->type == GGML_TYPE_F32) {
                set_random(t);
            }
        }
    }

    // activations: "float", or encoded as "spikes" or "q8"
    void product(ggml_type type, int64_t n, int64_t m, ggml_tensor * x, const std::string & activations) {
        ggml_tensor * w = weight(type, n, m);
        ops += 2.0*n*m*x->ne[1];
        if (activations == "float") {
            ggml_build_forward_expand(gf, ggml_mul_mat(ctx, w, x));
            return;
        }
#ifdef SB_BENCH_SPIKINGBRAIN
        ggml_tensor * scales = type == GGML_TYPE_I8 ? f32(n/128, m) : nullptr;
        bytes += scales ? ggml_nbytes(scales) : 0;
        ggml_build_forward_expand(gf, ggml_spk_mul_mat(ctx, w, scales, nullptr, nullptr, encoded(x, activations)));
#else
        fail("activations: got " + activations + ", expected float: upstream has no such product");
#endif
    }

#ifdef SB_BENCH_SPIKINGBRAIN
    std::map<ggml_tensor *, ggml_tensor *> codes;

    ggml_tensor * encoded(ggml_tensor * x, const std::string & activations) { // once for all products that read it
        auto & act = codes[x];
        return act ? act : act = ggml_spk_encode(ctx, x, 3.0f, activations == "q8" ? GGML_SPK_Q8 : GGML_SPK_SPIKE);
    }

    static constexpr int32_t N_JOURNAL = 64; // of n_rs_seq 32

    ggml_tensor * seqs = nullptr, * pos = nullptr, * plan = nullptr;

    // outputs, and the state that is left with its journal
    void gla(int64_t d, int64_t H, int64_t G, int64_t T) {
        seqs = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, GGML_SPK_SEQ_N_INFO, 1);
        plan = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, GGML_SPK_PLAN_N, 1);
        ggml_tensor * memory = f32(d, ggml_spk_gla_rows(d, G, 2, N_JOURNAL)), * k = f32(d, G, T), * v = f32(d, G, T);
        ggml_tensor * decay = ggml_exp(ctx, ggml_scale(ctx, ggml_sqr(ctx, f32(d, G, T)), -0.1f));
        ggml_tensor * o = ggml_spk_gla(ctx, f32(d, H, T), k, v, decay, memory, seqs, 1/std::sqrt((float) d));
        ggml_build_forward_expand(gf, o);
        ggml_build_forward_expand(gf, ggml_spk_gla_update(ctx, memory, k, v, decay, plan, o, G, 2, N_JOURNAL));
        bytes = 4.0*(3*d*d*G + 2*d*H*T + 6*d*G*T); // state read twice and written
        ops   = (6.0*d*d*G + 2.0*d*d*H)*T;
    }

    // the last T queries of a full window
    void swa(int64_t d, int64_t H, int64_t G, int64_t T, int64_t window, ggml_type type) {
        const int64_t ring = window + 512, row = type == GGML_TYPE_I8 ? GGML_SPK_KV_ROW(d) : d;
        seqs = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, GGML_SPK_SEQ_N_INFO, 1);
        pos  = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, T);
        ggml_tensor * K = ggml_new_tensor_3d(ctx_w, type, row, ring, G), * V = ggml_new_tensor_3d(ctx_w, type, row, ring, G);
        ggml_build_forward_expand(gf, ggml_spk_swa(ctx, f32(d, H, T), K, V, pos, seqs, ring, window, 1/std::sqrt((float) d), type == GGML_TYPE_I8 ? 3.0f : 0.0f));
        bytes = 2.0*ggml_row_size(type, row)*G*std::min(window + T - 1, ring);
        ops   = 4.0*d*H*window*T;
    }

    void set_positions(int64_t T, int64_t window) {
        if (seqs) {
            const int32_t info[GGML_SPK_SEQ_N_INFO] = { 0, 0, 0 };
            ggml_backend_tensor_set(seqs, info, 0, sizeof(info));
        }
        if (plan) {
            const ggml_spk_plan steps = { { { 0, 1, 0, 0, (int32_t) T }, { -1, -1, 0, 0, 0 } }, 0, 0, (int32_t) std::max<int64_t>(T - N_JOURNAL/2, 0) };
            ggml_backend_tensor_set(plan, &steps, 0, sizeof(steps));
        }
        for (int32_t t = 0; pos && t < T; ++t) {
            const int32_t p = window + t;
            ggml_backend_tensor_set(pos, &p, 4*t, 4);
        }
        // a row of an INT8 window ends in its float scale: random bytes there would be no number
        for (ggml_tensor * t = ggml_get_first_tensor(ctx_w); pos && t; t = ggml_get_next_tensor(ctx_w, t)) {
            for (int64_t r = 0; t->type == GGML_TYPE_I8 && r < t->ne[1]*t->ne[2]; ++r) {
                const float scale = 0.01f;
                memcpy((char *) t->data + (r + 1)*t->nb[1] - 4, &scale, 4);
            }
            if (t->type == GGML_TYPE_F16) { // set_random wrote one scale per element: constants
                for (int64_t i = 0; i < ggml_nelements(t); ++i) {
                    ((ggml_fp16_t *) t->data)[i] = ggml_fp32_to_fp16(((int) (rng_next(rng) >> 56) - 128)/128.0f);
                }
            }
        }
    }
#else
    void set_positions(int64_t, int64_t) {}
#endif
};

operator_bench::~operator_bench() { close(); }

void operator_bench::close() {
    delete g;
    g = nullptr;
}

static ggml_type type_named(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        if (ggml_type_name((ggml_type) i) == name) {
            return (ggml_type) i;
        }
    }
    fail("type: got '" + name + "', expected a name of ggml's");
}

json operator_bench::build(const request & r) {
    close();
    g = new graph(r.at("n_threads"));
    const std::string op = r.at("op");
    const int64_t T = r.value("T", 1), window = r.value("window", 4096);
    const std::string activations = r.value("activations", "float");

    if (op == "products") { // [n, m, how often]; inputs of equal width are shared, as the projections of a layer share theirs
        std::map<int64_t, ggml_tensor *> inputs;
        for (const auto & p : r.at("products")) {
            ggml_tensor *& x = inputs[p.at(0)];
            x = x ? x : g->f32(p.at(0), T);
            for (int i = 0; i < p.at(2).get<int>(); ++i) {
                g->product(type_named(r.at("type")), p.at(0), p.at(1), x, activations);
            }
        }
#ifdef SB_BENCH_SPIKINGBRAIN
    } else if (op == "gla") {
        g->gla(r.at("d"), r.at("H"), r.at("G"), T);
    } else if (op == "swa") {
        g->swa(r.at("d"), r.at("H"), r.at("G"), T, window, type_named(r.at("type")));
    } else if (op == "encode") {
        ggml_tensor * x = g->f32(r.at("n"), T);
        g->bytes = ggml_nbytes(x);
        g->ops   = 4.0*ggml_nelements(x); // magnitude, sum, division, rounding
        ggml_build_forward_expand(g->gf, g->encoded(x, "spikes"));
#endif
    } else {
        fail("op: got '" + op + "', expected products, gla, swa or encode, the last three of the fork only");
    }
    const std::string weights_in = r.value("weights_in", activations != "float" ? "CPU_SPK" : op == "products" ? "CPU_REPACK" : "CPU");
    g->allocate(weights_in.c_str());
    g->set_positions(T, window);
    return { { "bytes", g->bytes }, { "ops", g->ops } };
}

// `runs` times the mean of `repeat` executions
json operator_bench::time(const request & r) {
    if (!g) {
        fail("op_time: got no operator, expected one; send 'op_build' first");
    }
    std::vector<double> seconds;
    for (int i = 0; i < r.value("runs", 1); ++i) {
        const int repeat = r.value("repeat", 1);
        const double t0 = now();
        for (int k = 0; k < repeat; ++k) {
            ggml_backend_graph_compute(g->backend, g->gf);
        }
        seconds.push_back((now() - t0)/repeat);
    }
    g->pool.pause();
    return { { "seconds", seconds } };
}
