// The attention operators, and the product of BF16, against plain loops in double: every tail length, group size, ring position and
// thread count. Float sums of n terms are off by at most n*2^-24 of the sum of magnitudes; the bounds below
// leave a factor of a few for the softmax and the recurrence.

#include "check.h"
#include "cpu.h"

#include "ggml.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <cstring>

static const double BOUND = 2e-5;

//
// gated linear attention
//

// one key/value head of the recurrence in double: S[d][d] after token t
static void advance(double * S, int64_t d, int64_t n_kv, int64_t h, int64_t t, const std::vector<float> & k, const std::vector<float> & v, const std::vector<float> & w) {
    const int64_t x = (t*n_kv + h)*d;
    for (int64_t i = 0; i < d; ++i) {
        for (int64_t j = 0; j < d; ++j) {
            S[i*d + j] = S[i*d + j]*w[x + i] + (double) k[x + i]*v[x + j];
        }
    }
}

static void test_gla(int64_t d, int64_t n_head, int64_t n_kv, int64_t n_tok, int64_t n_seqs) {
    random_floats rnd(d*1000 + n_head*100 + n_tok);
    const int64_t T = n_tok*n_seqs, n_rows = 2*n_seqs + 1, n_group = n_head/n_kv;
    const auto q = rnd.uniform(d*n_head*T, 0, 1), k = rnd.uniform(d*n_kv*T, 0, 1), v = rnd.normal(d*n_kv*T);
    const auto w = rnd.uniform(d*n_kv*T, 0.8f, 1.0f), state = rnd.normal(d*d*n_kv*n_rows);

    std::vector<int32_t> seqs; // sequence s starts from row 2s, the last one from nothing
    for (int32_t s = 0; s < n_seqs; ++s) {
        seqs.insert(seqs.end(), { s == n_seqs - 1 ? -1 : 2*s, 0, 0 });
    }
    const float scale = 1.0f/sqrtf(d);

    std::vector<double> o(d*n_head*T), S_all(state.begin(), state.end());
    for (int64_t s = 0; s < n_seqs; ++s) {
        for (int64_t h = 0; h < n_kv; ++h) {
            double * S = &S_all[(2*s*n_kv + h)*d*d];
            if (s == n_seqs - 1) {
                std::fill(S, S + d*d, 0.0);
            }
            for (int64_t t = s*n_tok; t < (s + 1)*n_tok; ++t) {
                advance(S, d, n_kv, h, t, k, v, w);
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
        ggml_tensor * st = g.tensor(GGML_TYPE_F32, { d, d*n_kv*n_rows }, state);
        auto out = g.run(ggml_spk_gla(g.ctx,
            g.tensor(GGML_TYPE_F32, { d, n_head, T }, q), g.tensor(GGML_TYPE_F32, { d, n_kv, T }, k), g.tensor(GGML_TYPE_F32, { d, n_kv, T }, v),
            g.tensor(GGML_TYPE_F32, { d, n_kv, T }, w), st, g.tensor(GGML_TYPE_I32, { GGML_SPK_SEQ_N_INFO, n_seqs }, seqs), scale), n_threads);

        char name[128];
        snprintf(name, sizeof(name), "gla d=%d heads=%d/%d tokens=%d seqs=%d threads=%d", (int) d, (int) n_head, (int) n_kv, (int) n_tok, (int) n_seqs, n_threads);
        check(max_error(out, o) < BOUND, std::string(name) + " output");
        check(memcmp(st->data, state.data(), ggml_nbytes(st)) == 0, std::string(name) + " states are only read");
        if (n_threads == 1) {
            first = out;
        }
        check(out == first, std::string(name) + " same bits as with one thread");
    }
}

// States and journal of n_seqs slots, three rows each; a call per plan, on tokens of its own or none.
struct gla_memory {
    graph g;
    int64_t d, n_kv, n_seqs, n_journal, n_states;
    ggml_tensor * memory;

    gla_memory(int64_t d, int64_t n_kv, int64_t n_seqs, int64_t n_journal, const std::vector<float> & data) :
        d(d), n_kv(n_kv), n_seqs(n_seqs), n_journal(n_journal), n_states(3*n_seqs),
        memory(g.tensor(GGML_TYPE_F32, { d, ggml_spk_gla_rows(d, n_kv, n_states, n_journal*n_seqs) }, data)) {}

    static size_t size(int64_t d, int64_t n_kv, int64_t n_seqs, int64_t n_journal) { return d*ggml_spk_gla_rows(d, n_kv, 3*n_seqs, n_journal*n_seqs); }

    // kvw: {d, n_kv, n_tok*n_seqs} each, empty: none
    void update(const std::vector<ggml_spk_plan> & plans, const std::vector<std::vector<float>> & kvw, int n_threads) {
        ggml_tensor * in[3] = { nullptr, nullptr, nullptr };
        for (size_t i = 0; i < kvw.size(); ++i) {
            in[i] = g.tensor(GGML_TYPE_F32, { d, n_kv, (int64_t) kvw[i].size()/(d*n_kv) }, kvw[i]);
        }
        ggml_tensor * p = ggml_new_tensor_2d(g.ctx, GGML_TYPE_I32, GGML_SPK_PLAN_N, plans.size());
        memcpy(p->data, plans.data(), ggml_nbytes(p));
        g.run(ggml_spk_gla_update(g.ctx, memory, in[0], in[1], in[2], p, nullptr, n_kv, n_states, n_journal), n_threads);
    }

    std::vector<float> state(int64_t row) const {
        const float * x = (const float *) memory->data + row*d*d*n_kv;
        return std::vector<float>(x, x + d*d*n_kv);
    }
};

// The states after n_tok tokens of two sequences; the same bits by one call, by single tokens and by replaying the journal
static void test_gla_update(int64_t d, int64_t n_kv, int32_t n_tok, int32_t n_journal) {
    random_floats rnd(d*1000 + n_tok);
    const int64_t n_seqs = 2, row = d*n_kv;
    const std::vector<std::vector<float>> kvw = { rnd.uniform(row*n_tok*n_seqs, 0, 1), rnd.normal(row*n_tok*n_seqs), rnd.uniform(row*n_tok*n_seqs, 0.8f, 1.0f) };
    const auto start = rnd.normal(gla_memory::size(d, n_kv, n_seqs, n_journal));
    const auto name  = "gla update d=" + std::to_string(d) + " heads=" + std::to_string(n_kv) + " tokens=" + std::to_string(n_tok) + " journal=" + std::to_string(n_journal);

    gla_memory whole(d, n_kv, n_seqs, n_journal, start), single(d, n_kv, n_seqs, n_journal, start);
    const int32_t kept = std::min(n_tok, n_journal), at = n_journal - 1; // the journal wraps
    std::vector<ggml_spk_plan> plans;
    for (int32_t s = 0; s < n_seqs; ++s) { // in two steps, the second one in place
        plans.push_back({ { { 3*s, 3*s + 1, 0, 0, n_tok/3 }, { 3*s + 1, 3*s + 1, 0, n_tok/3, n_tok - n_tok/3 } }, s, at, n_tok - kept });
    }
    whole.update(plans, kvw, 1);
    for (int32_t t = 0; t < n_tok; ++t) {
        std::vector<std::vector<float>> one;
        for (const auto & x : kvw) {
            one.emplace_back();
            for (int64_t s = 0; s < n_seqs; ++s) {
                one.back().insert(one.back().end(), x.begin() + (s*n_tok + t)*row, x.begin() + (s*n_tok + t + 1)*row);
            }
        }
        plans.clear();
        for (int32_t s = 0; s < n_seqs; ++s) {
            const int32_t from = t == 0 ? 3*s : 3*s + 1;
            plans.push_back({ { { from, 3*s + 1, 0, 0, 1 }, { -1, -1, 0, 0, 0 } }, s, (at + std::max(0, t - (n_tok - kept))) % n_journal, t < n_tok - kept ? 1 : 0 });
        }
        single.update(plans, one, 3);
    }

    for (int32_t s = 0; s < n_seqs; ++s) {
        std::vector<double> S(start.begin() + 3*s*d*row, start.begin() + (3*s + 1)*d*row);
        for (int64_t h = 0; h < n_kv; ++h) {
            for (int32_t t = s*n_tok; t < (s + 1)*n_tok; ++t) {
                advance(&S[h*d*d], d, n_kv, h, t, kvw[0], kvw[1], kvw[2]);
            }
        }
        check(max_error(whole.state(3*s + 1), S) < BOUND, name + " state");
        check(whole.state(3*s + 1) == single.state(3*s + 1), name + " same bits token by token, by three threads");
        check(whole.state(3*s) == std::vector<float>(start.begin() + 3*s*d*row, start.begin() + (3*s + 1)*d*row), name + " the state before stays");
    }
    check(memcmp((float *) whole.memory->data + whole.n_states*d*row, (float *) single.memory->data + whole.n_states*d*row,
        n_seqs*n_journal*3*row*sizeof(float)) == 0, name + " same journal");

    if (kept == n_tok) {
        plans.clear();
        for (int32_t s = 0; s < n_seqs; ++s) {
            plans.push_back({ { { 3*s, 3*s + 2, 1, at, n_tok }, { -1, -1, 0, 0, 0 } }, s, 0, 0 });
        }
        whole.update(plans, {}, 2);
        check(whole.state(2) == whole.state(1) && whole.state(5) == whole.state(4), name + " same bits replayed");
    }
}

//
// window attention
//

// the spiking variant's query: counts times threshold, in the order that ggml_spk_encode sums
static std::vector<float> spiked(const float * x, int64_t d, float k) {
    double lane[16] = { 0 }, sum = 0;
    for (int64_t i = 0; i < d; ++i) {
        lane[i % 16] += std::fabs(x[i]);
    }
    for (double l : lane) {
        sum += l;
    }
    const float v_th = std::min(std::max((float) (sum/d)/k, 1e-5f), 1e4f);
    std::vector<float> s(d + 1, v_th);
    for (int64_t i = 0; i < d; ++i) {
        s[i] = std::nearbyint(x[i]/v_th);
    }
    return s;
}

struct swa_case {
    ggml_type type; // of the ring; I8: the spiking variant
    int64_t d, n_head, n_kv, n_tok, n_seqs;
    int32_t window, n_ring, pos0, first;
    float spike_k = 3.0f, boost = 1.0f; // of one channel of the queries, so that counts are large
};

// a ring of the given type, and the values that it holds as floats
struct ring {
    std::vector<float>   x;
    std::vector<uint8_t> data;

    ring(const swa_case & c, std::vector<float> values) : x(std::move(values)) {
        const int64_t n_rows = x.size()/c.d;
        if (c.type == GGML_TYPE_F32) {
            data.assign((uint8_t *) x.data(), (uint8_t *) (x.data() + x.size()));
        } else if (c.type == GGML_TYPE_F16) {
            data.resize(x.size()*sizeof(ggml_fp16_t));
            ggml_fp32_to_fp16_row(x.data(), (ggml_fp16_t *) data.data(), x.size());
            ggml_fp16_to_fp32_row((ggml_fp16_t *) data.data(), x.data(), x.size());
        } else {
            data.resize(n_rows*GGML_SPK_KV_ROW(c.d));
            for (int64_t r = 0; r < n_rows; ++r) {
                int8_t * row = (int8_t *) data.data() + r*GGML_SPK_KV_ROW(c.d);
                const float scale = 0.01f + 0.001f*(r % 7);
                for (int64_t i = 0; i < c.d; ++i) {
                    row[i] = (int8_t) std::max(-127.0f, std::min(127.0f, std::nearbyint(40.0f*x[r*c.d + i])));
                    x[r*c.d + i] = row[i]*scale;
                }
                memcpy(row + GGML_SPK_KV_ROW(c.d) - 4, &scale, 4);
            }
        }
    }
};

static std::vector<double> swa_reference(const swa_case & c, const std::vector<float> & q, const ring & k, const ring & v,
        const std::vector<int32_t> & pos, const std::vector<int32_t> & seqs, float scale, float spike_k) {
    const int64_t T = c.n_tok*c.n_seqs, n_slots = c.n_seqs + 1, n_group = c.n_head/c.n_kv;
    std::vector<double> o(c.d*c.n_head*T);
    for (int64_t t = 0; t < T; ++t) {
        const int64_t slot = seqs[t/c.n_tok*GGML_SPK_SEQ_N_INFO + GGML_SPK_SEQ_SLOT];
        for (int64_t h = 0; h < c.n_head; ++h) {
            auto row = [&](const ring & r, int64_t p) { return &r.x[(h/n_group*c.n_ring*n_slots + slot*c.n_ring + p % c.n_ring)*c.d]; };
            const float * q_row = &q[(t*c.n_head + h)*c.d];
            const auto    q_s   = spike_k > 0 ? spiked(q_row, c.d, spike_k) : std::vector<float>();
            const int64_t lo = std::max<int64_t>(c.first, (int64_t) pos[t] - c.window + 1);
            std::vector<double> s;
            for (int64_t p = lo; p <= pos[t]; ++p) {
                double dot = 0;
                for (int64_t i = 0; i < c.d; ++i) {
                    dot += (spike_k > 0 ? (double) q_s[i]*q_s[c.d] : q_row[i])*row(k, p)[i];
                }
                s.push_back(dot*scale);
            }
            const double max = *std::max_element(s.begin(), s.end());
            double sum = 0;
            for (auto & x : s) {
                sum += x = std::exp(x - max);
            }
            for (size_t p = 0; p < s.size(); ++p) {
                for (int64_t i = 0; i < c.d; ++i) {
                    o[(t*c.n_head + h)*c.d + i] += s[p]/sum*row(v, lo + p)[i];
                }
            }
        }
    }
    return o;
}

static void test_swa(const swa_case & c) {
    random_floats rnd(c.d*1000 + c.n_head*100 + c.n_tok + c.pos0);
    const int64_t T = c.n_tok*c.n_seqs, n_slots = c.n_seqs + 1;
    auto q = rnd.normal(c.d*c.n_head*T, 2.0f);
    for (size_t i = 1; i < q.size(); i += 2*c.d) { // of every second row
        q[i] *= c.boost;
    }
    const ring k(c, rnd.normal(c.d*c.n_ring*n_slots*c.n_kv)), v(c, rnd.normal(c.d*c.n_ring*n_slots*c.n_kv));

    std::vector<int32_t> seqs, pos;
    for (int64_t s = 0; s < c.n_seqs; ++s) {
        seqs.insert(seqs.end(), { 0, (int32_t) (c.n_seqs - s), c.first }); // slots in reverse, slot 0 unused
        for (int64_t t = 0; t < c.n_tok; ++t) {
            pos.push_back(c.pos0 + 3*s + t);
        }
    }
    const float scale   = 1.0f/sqrtf(c.d)/c.boost;
    const float spike_k = c.type == GGML_TYPE_I8 ? c.spike_k : 0.0f;
    const auto  o       = swa_reference(c, q, k, v, pos, seqs, scale, spike_k);

    std::vector<float> one;
    for (int n_threads = 1; n_threads <= 4; ++n_threads) {
        graph g;
        const std::vector<int64_t> ne = { c.type == GGML_TYPE_I8 ? GGML_SPK_KV_ROW(c.d) : c.d, c.n_ring*n_slots, c.n_kv };
        auto out = g.run(ggml_spk_swa(g.ctx, g.tensor(GGML_TYPE_F32, { c.d, c.n_head, T }, q), g.tensor(c.type, ne, k.data), g.tensor(c.type, ne, v.data),
            g.tensor(GGML_TYPE_I32, { T }, pos), g.tensor(GGML_TYPE_I32, { GGML_SPK_SEQ_N_INFO, c.n_seqs }, seqs), c.n_ring, c.window, scale, spike_k), n_threads);

        char name[160];
        snprintf(name, sizeof(name), "swa %s d=%d heads=%d/%d tokens=%d seqs=%d window=%d ring=%d pos=%d first=%d k=%g boost=%g threads=%d",
            ggml_type_name(c.type), (int) c.d, (int) c.n_head, (int) c.n_kv, (int) c.n_tok, (int) c.n_seqs, c.window, c.n_ring, c.pos0, c.first, c.spike_k, c.boost, n_threads);
        check(max_error(out, o) < BOUND, name);
        if (n_threads == 1) {
            one = out;
        }
        check(out == one, std::string(name) + " same bits as with one thread");
    }
}

// what is no number shows in its own row, and in no other
static void test_swa_nan(const swa_case & c) {
    random_floats rnd(1);
    auto q = rnd.normal(c.d*c.n_head*c.n_tok);
    const ring k(c, rnd.normal(c.d*c.n_ring*c.n_kv)), v(c, rnd.normal(c.d*c.n_ring*c.n_kv));
    q[1] = NAN;
    std::vector<int32_t> pos;
    for (int64_t t = 0; t < c.n_tok; ++t) {
        pos.push_back(c.pos0 + t);
    }
    graph g;
    const std::vector<int64_t> ne = { c.type == GGML_TYPE_I8 ? GGML_SPK_KV_ROW(c.d) : c.d, c.n_ring, c.n_kv };
    const auto out = g.run(ggml_spk_swa(g.ctx, g.tensor(GGML_TYPE_F32, { c.d, c.n_head, c.n_tok }, q), g.tensor(c.type, ne, k.data), g.tensor(c.type, ne, v.data),
        g.tensor(GGML_TYPE_I32, { c.n_tok }, pos), g.tensor(GGML_TYPE_I32, { GGML_SPK_SEQ_N_INFO, 1 }, std::vector<int32_t>{ 0, 0, c.first }), c.n_ring, c.window, 1.0f,
        c.type == GGML_TYPE_I8 ? 3.0f : 0.0f), 1);
    bool ok = true;
    for (size_t i = 0; i < out.size(); ++i) {
        ok = ok && std::isnan(out[i]) == (i < (size_t) c.d);
    }
    check(ok, std::string("swa ") + ggml_type_name(c.type) + " NaN stays in its row");
}

// a stored key or value that was no number shows in every output that reads it, and in no other
static void test_swa_bad_row(const swa_case & c, bool in_values) {
    random_floats rnd(2);
    const auto q = rnd.normal(c.d*c.n_head*c.n_tok);
    ring k(c, rnd.normal(c.d*c.n_ring*c.n_kv)), v(c, rnd.normal(c.d*c.n_ring*c.n_kv));
    const int32_t bad = c.pos0 + c.n_tok/2; // of the first head
    const float nan = NAN;
    memcpy((in_values ? v : k).data.data() + (bad % c.n_ring + 1)*GGML_SPK_KV_ROW(c.d) - 4, &nan, 4);
    std::vector<int32_t> pos;
    for (int64_t t = 0; t < c.n_tok; ++t) {
        pos.push_back(c.pos0 + t);
    }
    graph g;
    const std::vector<int64_t> ne = { GGML_SPK_KV_ROW(c.d), c.n_ring, c.n_kv };
    const auto out = g.run(ggml_spk_swa(g.ctx, g.tensor(GGML_TYPE_F32, { c.d, c.n_head, c.n_tok }, q), g.tensor(c.type, ne, k.data), g.tensor(c.type, ne, v.data),
        g.tensor(GGML_TYPE_I32, { c.n_tok }, pos), g.tensor(GGML_TYPE_I32, { GGML_SPK_SEQ_N_INFO, 1 }, std::vector<int32_t>{ 0, 0, c.first }), c.n_ring, c.window, 1.0f, c.spike_k), 2);
    bool ok = true;
    for (size_t i = 0; i < out.size(); ++i) {
        const bool reads = pos[i/(c.d*c.n_head)] >= bad && (int64_t) (i/c.d % c.n_head) < c.n_head/c.n_kv;
        ok = ok && std::isnan(out[i]) == reads;
    }
    check(ok, std::string("swa d=") + std::to_string(c.d) + " tokens=" + std::to_string(c.n_tok) + " a NaN " + (in_values ? "value" : "key") + " shows where it is read");
}

static void test_store(int64_t d, int64_t n_kv, int64_t T) {
    random_floats rnd(d + T);
    auto x = rnd.normal(d*n_kv*T, 3.0f);
    std::fill(x.begin(), x.begin() + d, 0.0f); // a row of zeros
    x[d*n_kv*T - 1] = 3e6f;                    // a scale beyond the upper clamp
    const int64_t n_rows = 2*T + 1, width = GGML_SPK_KV_ROW(d);
    std::vector<int64_t> rows(T);
    for (int64_t t = 0; t < T; ++t) {
        rows[t] = (t*2 + 1) % n_rows;
    }
    const std::vector<int8_t> before(width*n_rows*n_kv, 99);
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
        graph g;
        ggml_tensor * r = g.tensor(GGML_TYPE_I8, { width, n_rows, n_kv }, before);
        g.run(ggml_spk_store(g.ctx, r, g.tensor(GGML_TYPE_F32, { d, n_kv, T }, x), g.tensor(GGML_TYPE_I64, { T }, rows)), n_threads);

        std::vector<int8_t> expected = before;
        for (int64_t t = 0; t < T; ++t) {
            for (int64_t h = 0; h < n_kv; ++h) {
                const float * in = &x[(t*n_kv + h)*d];
                float max = 0;
                for (int64_t i = 0; i < d; ++i) {
                    max = std::max(max, std::fabs(in[i]));
                }
                const float scale = std::min(std::max(max/127, 1e-5f), 1e4f);
                int8_t * row = &expected[(h*n_rows + rows[t])*width];
                for (int64_t i = 0; i < d; ++i) {
                    row[i] = (int8_t) std::min(127.0f, std::nearbyint(in[i]/scale));
                }
                memcpy(row + width - 4, &scale, 4);
            }
        }
        bool ok = true;
        for (int64_t r0 = 0; r0 < n_rows*n_kv; ++r0) { // the bytes between the codes and the scale are nobody's
            ok = ok && memcmp((int8_t *) r->data + r0*width, &expected[r0*width], d) == 0 && memcmp((int8_t *) r->data + (r0 + 1)*width - 4, &expected[(r0 + 1)*width - 4], 4) == 0;
        }
        check(ok, "store d=" + std::to_string(d) + " rows written and others kept");
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

static void test_decay(int64_t n, int64_t T, bool with_bias) {
    random_floats rnd(n + T);
    auto x = rnd.normal(n*T), bias = rnd.normal(n);
    x[0] = 90.0f; // beyond what exp(x) holds, on both sides
    x[1] = -90.0f;
    std::vector<double> y(x.size());
    for (int64_t i = 0; i < n*T; ++i) {
        const double v = x[i] + (with_bias ? (double) bias[i % n] : 0.0);
        y[i] = std::exp(-(v < -40 ? -v : std::log1p(std::exp(-v)))/16.0);
    }
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
        graph g;
        ggml_tensor * b = with_bias ? g.tensor(GGML_TYPE_F32, { n }, bias) : nullptr;
        check(max_error(g.run(ggml_spk_decay(g.ctx, g.tensor(GGML_TYPE_F32, { n, T }, x), b, 16.0f), n_threads), y) < 1e-6, "decay");
    }
}

//
// the product of BF16 matrices, whose rows spk-bf16.h multiplies on ARM
//

static void test_bf16(int64_t n) {
    random_floats rnd(n);
    const int64_t m = 3, T = 2;
    auto w = rnd.normal(n*m), x = rnd.normal(n*T);
    std::vector<ggml_bf16_t> half(n*m), half_x(n*T);
    ggml_fp32_to_bf16_row(w.data(), half.data(), n*m);
    ggml_bf16_to_fp32_row(half.data(), w.data(), n*m);
    ggml_fp32_to_bf16_row(x.data(), half_x.data(), n*T); // the product rounds its input so
    ggml_bf16_to_fp32_row(half_x.data(), x.data(), n*T);

    std::vector<double> y(m*T);
    for (int64_t t = 0; t < T; ++t) {
        for (int64_t r = 0; r < m; ++r) {
            for (int64_t i = 0; i < n; ++i) {
                y[t*m + r] += (double) w[r*n + i]*x[t*n + i];
            }
        }
    }
    graph g;
    check(max_error(g.run(ggml_mul_mat(g.ctx, g.tensor(GGML_TYPE_BF16, { n, m }, half), g.tensor(GGML_TYPE_F32, { n, T }, x)), 1), y) < BOUND,
        "bf16 product of " + std::to_string(n) + " columns");
}

int main() {
    test_decay(64, 5, true);
    test_decay(30, 1, false);
    for (int64_t n = 1; n <= 140; ++n) {
        test_bf16(n);
    }
    for (int64_t d : { 2, 6, 16, 18, 30, 32, 40, 48, 64, 80, 128 }) {
        test_gla(d, 4, 2, 5, 2);
        test_gla_update(d, 2, 9, 9);
        test_swa({ GGML_TYPE_F32, d, 4, 2, 5, 2, 7, 12, 30, 0 });
        test_swa({ GGML_TYPE_F16, d, 4, 2, 1, 2, 7, 12, 30, 0 });
        test_swa({ GGML_TYPE_I8,  d, 4, 2, 5, 2, 7, 12, 30, 0 });
        test_swa({ GGML_TYPE_I8,  d, 4, 2, 1, 2, 7, 12, 30, 0 });
        test_store(d, 2, 5);
        test_rope(d, 3, 4);
    }
    for (int64_t n_group = 1; n_group <= 17; ++n_group) {
        test_gla(32, 2*n_group, 2, 3, 1);
        test_swa({ GGML_TYPE_F16, 32, 2*n_group, 2, 3, 1, 9, 12, 4, 0 });
    }
    for (int64_t n_tok = 1; n_tok <= 40; ++n_tok) {
        test_gla(20, 2, 1, n_tok, 3);
        test_gla_update(20, 1, n_tok, 16);
        test_swa({ GGML_TYPE_F32, 20, 2, 1, n_tok, 3, 24, 24 + 40, (int32_t) (10*n_tok), 0 });
    }
    for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_I8 }) {
        test_swa_nan({ type, 32, 4, 2, 1, 1, 100, 120, 90, 0 });
        test_swa_nan({ type, 32, 4, 2, 5, 1, 100, 120, 90, 0 });
    }
    for (int64_t n_tok : { 1, 5, 20 }) {
        for (bool in_values : { false, true }) {
            test_swa_bad_row({ GGML_TYPE_I8, 32, 4, 2, n_tok, 1, 100, 120, 90, 0 }, in_values);
            test_swa_bad_row({ GGML_TYPE_I8, 40, 4, 2, n_tok, 1, 100, 120, 90, 0 }, in_values);
        }
    }
    // counts of one digit and more, up to 10^6, beside rows without large ones
    for (float spike_k : { 0.5f, 3.0f, 100.0f, 2e4f }) {
        for (float boost : { 1.0f, 30.0f, 1000.0f }) {
            for (int64_t d : { 24, 64, 128 }) {
                test_swa({ GGML_TYPE_I8, d, 6, 2, 3, 1, 70, 80, 75, 0, spike_k, boost });
            }
            test_swa({ GGML_TYPE_I8, 64, 6, 2, 17, 1, 70, 90, 75, 0, spike_k, boost });
        }
    }
    // few tokens, whose keys are split, of rings that begin, end and wrap within a chunk
    for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_I8 }) {
        for (int64_t n_tok : { 2, 4, 7, 8, 9 }) {
            test_swa({ type, 64, 8, 2, n_tok, 2, 1100, 1200, 2000,    0 });
            test_swa({ type, 64, 4, 2, n_tok, 1, 1100, 1200,  600,  500 });
        }
    }
    // windows of one key, of several decode chunks; a sequence that begins late; the ring about to wrap
    test_swa({ GGML_TYPE_F16, 64, 7, 1,   1, 1,    1,    2,    9,    0 });
    test_swa({ GGML_TYPE_F16, 64, 7, 1,   1, 3, 1500, 1600, 4000,    0 });
    test_swa({ GGML_TYPE_F32, 64, 4, 2,   1, 2, 1500, 1600, 4000, 3990 });
    test_swa({ GGML_TYPE_F16, 64, 4, 2, 100, 1, 1500, 1600, 3150,    0 });
    test_swa({ GGML_TYPE_F16, 64, 4, 2, 100, 1, 1500, 1600,    0,    0 });
    test_swa({ GGML_TYPE_I8, 128, 7, 1,   1, 3, 1500, 1600, 4000,    0 });
    test_swa({ GGML_TYPE_I8,  64, 4, 2, 100, 1, 1500, 1600, 3150,    0 });
    test_swa({ GGML_TYPE_F32, 64, 4, 2,  33, 2,  100,  150, 2000000000, 1999999950 });
    return report("spk-ops");
}
