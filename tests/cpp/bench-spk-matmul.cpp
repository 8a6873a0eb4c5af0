// How fast SPK_ENCODE + SPK_MUL_MAT is beside ggml's own MUL_MAT on the same weights and F32 activations:
// Q4_0 in CPU_REPACK where the CPU has a layout for it, else as on disk. Runs alternate, A B A B; a ratio is taken per pair.
// usage: bench-spk-matmul [threads] [seconds per case] [T ...]

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

static ggml_backend_t cpu;

static ggml_backend_buffer_type_t buffer_type(const char * name) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
    auto extra = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts");
    for (auto * buft = extra(ggml_backend_get_device(cpu)); *buft; ++buft) {
        if (strcmp(ggml_backend_buft_name(*buft), name) == 0) {
            return *buft;
        }
    }
    return ggml_backend_get_default_buffer_type(cpu);
}

// one graph over one weight; make(ctx, w, x) builds it
struct side {
    ggml_context * ctx_w = ggml_init({ 1 << 20, nullptr, true });
    ggml_context * ctx   = ggml_init({ 1 << 20, nullptr, true });
    ggml_backend_buffer_t buf_w = nullptr, buf = nullptr;
    ggml_tensor * w;
    ggml_cgraph * gf;

    template <typename F>
    side(ggml_type type, int64_t n, int64_t m, int64_t T, ggml_backend_buffer_type_t buft, const std::vector<uint8_t> & data, const std::vector<float> & x, F make) {
        w     = ggml_new_tensor_2d(ctx_w, type, n, m);
        buf_w = ggml_backend_alloc_ctx_tensors_from_buft(ctx_w, buft);
        ggml_backend_tensor_set(w, data.data(), 0, data.size());
        ggml_tensor * t_x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, T);
        ggml_tensor * scales = type == GGML_TYPE_I8 ? ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n/128, m) : nullptr;
        gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, make(ctx, w, t_x, scales));
        buf = ggml_backend_alloc_ctx_tensors(ctx, cpu);
        if (scales) {
            std::fill((float *) scales->data, (float *) scales->data + ggml_nelements(scales), 0.01f);
        }
        memcpy(t_x->data, x.data(), ggml_nbytes(t_x));
    }
    ~side() {
        ggml_backend_buffer_free(buf_w);
        ggml_backend_buffer_free(buf);
        ggml_free(ctx_w);
        ggml_free(ctx);
    }
    double seconds(int repeat) const {
        const auto t0 = std::chrono::steady_clock::now();
        for (int i = 0; i < repeat; ++i) {
            ggml_backend_graph_compute(cpu, gf);
        }
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count()/repeat;
    }
};

static double percentile(std::vector<double> x, double p) {
    std::sort(x.begin(), x.end());
    return x[(size_t) (p*(x.size() - 1))];
}

static void bench(ggml_type type, int64_t n, int64_t m, int64_t T, int n_threads, double budget) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(n*T), row(n);
    for (auto & v : x) {
        v = normal(rng);
    }
    // I8 has no stock product: Q8_0 stands in for it
    const ggml_type stock = type == GGML_TYPE_I8 ? GGML_TYPE_Q8_0 : type;
    std::vector<uint8_t> data(m*ggml_row_size(type, n)), data_stock(m*ggml_row_size(stock, n));
    for (int64_t r = 0; r < m; ++r) {
        for (auto & v : row) {
            v = normal(rng);
        }
        ggml_quantize_chunk(stock, row.data(), &data_stock[r*ggml_row_size(stock, n)], 0, 1, n, nullptr);
    }
    if (type == stock) {
        data = data_stock;
    } else {
        for (auto & v : data) {
            v = (uint8_t) rng();
        }
    }
    side a(stock, n, m, T, buffer_type(stock == GGML_TYPE_Q4_0 ? "CPU_REPACK" : "-"), data_stock, x, [](ggml_context * ctx, ggml_tensor * w, ggml_tensor * x, ggml_tensor *) {
        return ggml_mul_mat(ctx, w, x);
    });
    auto product = [](ggml_context * ctx, ggml_tensor * w, ggml_tensor * x, ggml_tensor * scales) {
        return ggml_spk_mul_mat(ctx, w, scales, nullptr, nullptr, ggml_spk_encode(ctx, x, 3.0f, GGML_SPK_SPIKE));
    };
    side b(type, n, m, T, buffer_type("CPU_SPK"), data, x, product);
    side c(type, n, m, T, buffer_type("-"),       data, x, product);

    ggml_backend_cpu_set_n_threads(cpu, n_threads);
    const int repeat = std::max(1, (int) (0.004/std::max(a.seconds(2), 1e-6)));
    b.seconds(1);
    c.seconds(1);
    std::vector<double> ta, tb, tc, ratio, ratio_plain;
    for (double spent = 0; spent < budget || ratio.size() < 5; ) {
        ta.push_back(a.seconds(repeat));
        tb.push_back(b.seconds(repeat));
        tc.push_back(c.seconds(repeat));
        ratio.push_back(ta.back()/tb.back());
        ratio_plain.push_back(ta.back()/tc.back());
        spent += repeat*(ta.back() + tb.back() + tc.back());
    }
    // on a busy machine the fastest runs say most: times are the 5th percentile
    const double t = percentile(tb, 0.05), t_stock = percentile(ta, 0.05), t_plain = percentile(tc, 0.05);
    printf("%-5s %5d x %5d T=%-3d threads=%d  stock %9.1f us %6.1f GB/s %7.1f GOP/s | CPU_SPK %9.1f us %6.1f GB/s %7.1f GOP/s"
        " | x %.2f, pairs %.2f (%.2f..%.2f) | plain x %.2f, pairs %.2f (%.2f..%.2f)\n",
        ggml_type_name(type), (int) n, (int) m, (int) T, n_threads,
        t_stock*1e6, data_stock.size()/t_stock*1e-9, 2.0*n*m*T/t_stock*1e-9, t*1e6, data.size()/t*1e-9, 2.0*n*m*T/t*1e-9,
        t_stock/t,       percentile(ratio, 0.5),       percentile(ratio, 0.1),       percentile(ratio, 0.9),
        t_stock/t_plain, percentile(ratio_plain, 0.5), percentile(ratio_plain, 0.1), percentile(ratio_plain, 0.9));
    fflush(stdout);
}

int main(int argc, char ** argv) {
    const int    n_threads = argc > 1 ? atoi(argv[1]) : 1;
    const double budget    = argc > 2 ? atof(argv[2]) : 1.0;
    std::vector<int64_t> tokens;
    for (int i = 3; i < argc; ++i) {
        tokens.push_back(atoi(argv[i]));
    }
    if (tokens.empty()) {
        tokens = { 1, 512 };
    }
    cpu = ggml_backend_cpu_init();
    const int64_t shapes[][2] = { { 2048, 2048 }, { 2048, 8192 }, { 3584, 18944 }, { 18944, 3584 } };
    for (int64_t T : tokens) {
        for (ggml_type type : { GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_I8, GGML_TYPE_Q5_0 }) {
            for (const auto & shape : shapes) {
                bench(type, shape[0], shape[1], T, n_threads, budget);
            }
        }
    }
    ggml_backend_free(cpu);
    return 0;
}
