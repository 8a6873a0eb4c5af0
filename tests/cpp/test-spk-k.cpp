// The product of packed rows with weights in superblocks, Q2_K to Q6_K and IQ4_XS, interleaved in CPU_SPK: against the weights that ggml reads out of the blocks, in double.
// Sums are integers over 256 columns: with d, dmin and thresholds that are powers of two, and sums that a float holds, every bit must be right.
// Runs on the instruction set that SPIKINGBRAIN_ISA names; tests/test_cpp.py runs it on each.

#include "check.h"
#include "cpu.h"

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <cstring>

enum codes {
    RANDOM,  // all bits at random, d and dmin about 1e-3
    POWERS,  // the same, d and dmin powers of two
    HIGHEST, // the largest codes, scales and minima, d and dmin 2^-6
    LOWEST,  // all zero, scales of Q6_K -128
};

// blocks of `rows` rows of n columns as they are on disk
static std::vector<uint8_t> blocks_of(ggml_type type, int64_t n, int64_t rows, codes kind, random_floats & rnd) {
    std::vector<uint8_t> out(rows*ggml_row_size(type, n));
    for (auto & byte : out) {
        byte = kind == HIGHEST ? 255 : kind == LOWEST ? 0 : (uint8_t) rnd.rng();
    }
    const bool   centred = type == GGML_TYPE_Q3_K || type == GGML_TYPE_Q6_K, minima = !centred && type != GGML_TYPE_IQ4_XS;
    const size_t size = ggml_row_size(type, 256), d_at = centred ? size - 2 : type == GGML_TYPE_Q2_K ? size - 4 : 0;
    for (size_t at = 0; at < out.size(); at += size) {
        for (size_t i = 0; i < (minima ? 2 : 1); ++i) {
            const float x = kind == RANDOM ? rnd.uniform(1, 5e-4f, 2e-3f)[0] : std::ldexp(1.0f, kind == POWERS ? -4 - (int) (rnd.rng() % 4) : -6);
            const ggml_fp16_t d = ggml_fp32_to_fp16(x);
            memcpy(&out[at + d_at + 2*i], &d, 2);
        }
        if (type == GGML_TYPE_Q6_K && (kind == HIGHEST || kind == LOWEST)) {
            memset(&out[at + 192], kind == HIGHEST ? 127 : -128, 16);
        }
    }
    return out;
}

struct problem {
    ggml_type type;
    int64_t   n, m, T;
    std::vector<uint8_t> w, act; // act: packed rows

    size_t row_size() const { return ggml_spk_row_size(n); }
};

static std::vector<uint8_t> encoded(const std::vector<float> & x, int64_t n, float k, ggml_spk_encoding encoding) {
    graph g;
    ggml_tensor * rows = ggml_spk_encode(g.ctx, g.tensor<float>(GGML_TYPE_F32, { n, (int64_t) x.size()/n }, x), k, encoding);
    ggml_cgraph * gf = ggml_new_graph(g.ctx);
    ggml_build_forward_expand(gf, rows);
    cpu_compute(gf, 1);
    return std::vector<uint8_t>((uint8_t *) rows->data, (uint8_t *) rows->data + ggml_nbytes(rows));
}

static std::vector<double> expected(const problem & p) {
    std::vector<float> w(p.n*p.m);
    const size_t row = ggml_row_size(p.type, p.n);
    for (int64_t r = 0; r < p.m; ++r) {
        ggml_get_type_traits(p.type)->to_float(&p.w[r*row], &w[r*p.n], p.n);
    }
    std::vector<double> y(p.m*p.T);
    std::vector<int32_t> s(p.n);
    for (int64_t t = 0; t < p.T; ++t) {
        const auto act = ggml_spk_row_get(&p.act[t*p.row_size()], p.n);
        ggml_spk_row_counts(&p.act[t*p.row_size()], p.n, s.data());
        for (int64_t r = 0; r < p.m; ++r) {
            double sum = 0;
            for (int64_t i = 0; i < p.n; ++i) {
                sum += (double) w[r*p.n + i]*s[i]*(act.encoding == GGML_SPK_Q8 ? act.scales[i/32] : 1.0f);
            }
            y[t*p.m + r] = act.v_th*sum;
        }
    }
    return y;
}

// n_expert > 1: the rows are those of as many matrices, token t takes t % n_expert
static std::vector<float> multiply(const problem & p, int n_threads, int64_t n_expert = 1) {
    ggml_context * ctx = ggml_init({ 1 << 16, nullptr, true });
    ggml_tensor  * w   = ggml_new_tensor_3d(ctx, p.type, p.n, p.m/n_expert, n_expert);
    ggml_backend_buffer_t buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx, spk_buffer_type());
    ggml_backend_tensor_set(w, p.w.data(), 0, p.w.size());

    graph g;
    ggml_tensor * act = g.tensor<uint8_t>(GGML_TYPE_I8, { (int64_t) p.row_size(), p.T }, p.act), * y;
    if (n_expert > 1) {
        std::vector<int32_t> ids;
        for (int64_t t = 0; t < p.T; ++t) {
            ids.push_back(t % n_expert);
        }
        y = ggml_spk_mul_mat_id(g.ctx, w, nullptr, nullptr, nullptr, act, g.tensor<int32_t>(GGML_TYPE_I32, { 1, p.T }, ids));
    } else {
        y = ggml_spk_mul_mat(g.ctx, w, nullptr, nullptr, nullptr, act);
    }
    const auto result = g.run(y, n_threads);
    ggml_backend_buffer_free(buf);
    ggml_free(ctx);
    return result;
}

// FNV-1a of results: instruction sets of one processor family must give the same bits
static uint64_t fingerprint = 14695981039346656037ull;

// level: of all activations, which are encoded as 127 of its sign; 0: random ones
static void test(ggml_type type, int64_t n, int64_t m, int64_t T, codes kind, ggml_spk_encoding encoding, float level = 0.0f) {
    random_floats rnd(n + m + T + kind);
    problem p = { type, n, m, T, blocks_of(type, n, m, kind, rnd), {} };
    auto x = rnd.normal(n*T);
    if (kind == POWERS) {
        for (size_t i = 0; i < x.size(); ++i) { // mean magnitude 1 and k = 1: V_th = 1
            x[i] = i % 2 ? std::copysign(2.0f, x[i]) : 0.0f;
        }
    } else if (encoding == GGML_SPK_SPIKE) {
        for (int64_t t = 0; t < T; t += 3) {
            x[t*n + t % n] *= 300; // an outlier channel: counts beyond int8
        }
    }
    if (level != 0.0f) {
        x.assign(n*T, level);
    }
    p.act = encoded(x, n, level != 0.0f ? 127.0f : kind == POWERS ? 1.0f : 3.0f, encoding);

    char name[160];
    snprintf(name, sizeof(name), "%s n=%d m=%d T=%d codes=%d encoding=%d level=%g", ggml_type_name(type), (int) n, (int) m, (int) T, kind, encoding, level);
    const auto want = expected(p);
    const auto y    = multiply(p, 1);
    if (kind == POWERS && encoding == GGML_SPK_SPIKE) {
        bool same = true;
        for (int64_t i = 0; i < m*T; ++i) {
            same &= y[i] == (float) want[i];
        }
        check(same, std::string(name) + " exact");
    }
    check(max_error(y, want) < 1e-6, std::string(name));
    for (float v : y) {
        uint32_t bits;
        memcpy(&bits, &v, 4);
        fingerprint = (fingerprint ^ bits)*1099511628211ull;
    }
    if (level != 0.0f) {
        return;
    }
    for (int n_threads : { 2, 3, 4 }) {
        check(multiply(p, n_threads) == y, std::string(name) + " same bits with threads");
    }
    std::vector<float> one_by_one;
    for (int64_t t = 0; t < T; ++t) {
        const auto one = multiply({ type, n, m, 1, p.w, std::vector<uint8_t>(&p.act[t*p.row_size()], &p.act[t*p.row_size()] + p.row_size()) }, 1);
        one_by_one.insert(one_by_one.end(), one.begin(), one.end());
    }
    check(one_by_one == y, std::string(name) + " same bits one by one");

    const int64_t n_expert = m/16;
    if (n_expert > 1 && m % 16 == 0) {
        const auto chosen = multiply(p, 2, n_expert);
        bool same = true;
        for (int64_t t = 0; t < T; ++t) {
            same &= memcmp(&chosen[t*16], &y[t*m + t % n_expert*16], 16*sizeof(float)) == 0;
        }
        check(same, std::string(name) + " experts, same bits");
    }
}

static bool taken(ggml_type type, int64_t n, int64_t m) {
    ggml_context * ctx = ggml_init({ 1 << 16, nullptr, true });
    ggml_tensor  * w   = ggml_new_tensor_2d(ctx, type, n, m);
    ggml_backend_buffer_t buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx, spk_buffer_type());
    const bool ok = ggml_backend_supports_op(cpu_backend(), ggml_spk_mul_mat(ctx, w, nullptr, nullptr, nullptr, ggml_new_tensor_2d(ctx, GGML_TYPE_I8, ggml_spk_row_size(n), 1)));
    ggml_backend_buffer_free(buf);
    ggml_free(ctx);
    return ok;
}

int main() {
    const auto isa = ((ggml_spk_isa_t) ggml_backend_reg_get_proc_address(cpu_reg(), "ggml_spk_isa"))();
    const auto has = (ggml_spk_has_kernels_t) ggml_backend_reg_get_proc_address(cpu_reg(), "ggml_spk_has_kernels");
    check(has(GGML_TYPE_Q4_0) == (strcmp(isa, "generic") != 0) && !has(GGML_TYPE_IQ3_S), "has_kernels");

    for (ggml_type type : { GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ4_XS }) {
        check(has(type) == (strcmp(isa, "generic") != 0), "has_kernels of K-quants");
        check(taken(type, 256, 16), "CPU_SPK takes K-quants");
        check(!taken(type, 256, 24), "CPU_SPK refuses rows that are no multiple of 16");
        for (ggml_spk_encoding encoding : { GGML_SPK_SPIKE, GGML_SPK_Q8 }) {
            for (int64_t T = 1; T <= 12; ++T) {
                test(type, 512, 48, T, T % 2 ? RANDOM : POWERS, encoding);
            }
            for (int64_t T : { 16, 31, 32, 33, 40, 71 }) {
                test(type, 256, 32, T, RANDOM, encoding);
            }
            for (codes kind : { HIGHEST, LOWEST }) {
                test(type, 768, 16, 9, kind, encoding);
                test(type, 768, 16, 1, kind, encoding);
                for (int64_t T : { 1, 4, 9, 33 }) { // the largest sums there are, of either sign
                    test(type, 512, 16, T, kind, encoding,  1.0f);
                    test(type, 512, 16, T, kind, encoding, -1.0f);
                }
            }
            test(type, 2048, 80, 1, RANDOM, encoding);
            test(type, 2048, 80, 5, RANDOM, encoding);
            test(type, 1024, 1040, 3, RANDOM, encoding);
            test(type, 256, 16, 2, POWERS, encoding);
        }
    }
    printf("fingerprint %016llx\n", (unsigned long long) fingerprint);
    return report((std::string("spk-k ") + isa).c_str());
}
