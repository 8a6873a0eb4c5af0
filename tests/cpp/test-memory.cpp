// The promises of the memory, on any spikingbrain GGUF: one batch, pieces and single tokens agree; sequences do
// not disturb each other; what is copied, saved, undone or interrupted continues exactly. Logits are compared
// within a part (default 0.001) of the largest one: matrix products sum in another order for another batch size.
// A spiking model needs a wider one where that moves a value across a rounding boundary.

#include "check.h"

#include "llama.h"
#include "llama-spikingbrain.h"

#include <algorithm>
#include <cstring>
#include <cstdint>
#include <map>
#include <memory>

static float limit = 1e-3f;

using tokens = std::vector<llama_token>;
using logits = std::vector<float>; // of one token

static llama_model * model;
static int n_vocab;

struct context {
    llama_context * ctx;

    explicit context(uint32_t n_seq_max = 4, uint32_t n_ubatch = 16, bool unified = false, int n_threads = 1, int pooling = -1) {
        auto p = llama_context_default_params();
        p.n_ctx = 0;
        p.n_batch = 256;
        p.n_ubatch = n_ubatch;
        p.n_seq_max = n_seq_max;
        p.kv_unified = unified;
        p.n_threads = p.n_threads_batch = n_threads;
        p.embeddings = pooling >= 0;
        p.pooling_type = pooling >= 0 ? (enum llama_pooling_type) pooling : LLAMA_POOLING_TYPE_UNSPECIFIED;
        ctx = llama_init_from_model(model, p);
    }
    context(const context &) = delete;
    ~context() { llama_free(ctx); }

    llama_memory_t mem() const { return llama_get_memory(ctx); }
    llama_pos      end(llama_seq_id s) const { return llama_memory_seq_pos_max(mem(), s) + 1; }

    // (sequences, token) each, at the next position of the first sequence named; logits of all of them
    int decode(const std::vector<std::pair<std::vector<llama_seq_id>, llama_token>> & in, std::vector<logits> & out) {
        const int rc = decode_only(in);
        for (size_t i = 0; rc == 0 && i < in.size(); ++i) {
            const float * l = llama_get_logits_ith(ctx, i);
            out.emplace_back(l, l + n_vocab);
        }
        return rc;
    }

    int decode_only(const std::vector<std::pair<std::vector<llama_seq_id>, llama_token>> & in) {
        llama_batch b = llama_batch_init(in.size(), 0, 8);
        std::map<llama_seq_id, llama_pos> next;
        b.n_tokens = in.size();
        for (size_t i = 0; i < in.size(); ++i) {
            const llama_seq_id s0 = in[i].first[0];
            if (!next.count(s0)) {
                next[s0] = end(s0);
            }
            b.token[i]    = in[i].second;
            b.pos[i]      = next[s0];
            b.n_seq_id[i] = in[i].first.size();
            b.logits[i]   = 1;
            for (size_t j = 0; j < in[i].first.size(); ++j) {
                b.seq_id[i][j] = in[i].first[j];
                next[in[i].first[j]] = b.pos[i] + 1;
            }
        }
        const int rc = llama_decode(ctx, b);
        llama_batch_free(b);
        return rc;
    }

    std::vector<logits> eval(const tokens & t, size_t piece = 256, llama_seq_id s = 0) {
        std::vector<logits> out;
        for (size_t i = 0; i < t.size(); i += piece) {
            std::vector<std::pair<std::vector<llama_seq_id>, llama_token>> in;
            for (size_t j = i; j < std::min(i + piece, t.size()); ++j) {
                in.push_back({ { s }, t[j] });
            }
            check(decode(in, out) == 0, "decode");
        }
        return out;
    }
};

static tokens text(size_t n, uint32_t seed) {
    std::mt19937 rng(seed);
    tokens t(n);
    for (auto & x : t) {
        x = rng() % std::min(n_vocab, 400);
    }
    return t;
}

static bool same(const std::vector<logits> & a, const std::vector<logits> & b) {
    if (a.size() != b.size()) {
        return false;
    }
    for (size_t i = 0; i < a.size(); ++i) {
        float err = 0, mag = 0;
        for (int j = 0; j < n_vocab; ++j) {
            err = std::max(err, std::isfinite(a[i][j]) ? std::fabs(a[i][j] - b[i][j]) : INFINITY);
            mag = std::max(mag, std::fabs(b[i][j]));
        }
        if (!(err <= limit*mag)) {
            fprintf(stderr, "  token %zu: logits differ by %g of %g\n", i, err, mag);
            return false;
        }
    }
    return true;
}

template <typename T>
static std::vector<T> part(const std::vector<T> & x, size_t a, size_t b) {
    return std::vector<T>(x.begin() + a, x.begin() + b);
}

static std::vector<uint8_t> save(const context & c, llama_seq_id s, llama_state_seq_flags flags = 0) {
    std::vector<uint8_t> data(llama_state_seq_get_size_ext(c.ctx, s, flags));
    data.resize(llama_state_seq_get_data_ext(c.ctx, data.data(), data.size(), s, flags));
    return data;
}

static size_t restore(const context & c, llama_seq_id s, const std::vector<uint8_t> & data, llama_state_seq_flags flags = 0) {
    return llama_state_seq_set_data_ext(c.ctx, data.data(), data.size(), s, flags);
}

int main(int argc, char ** argv) {
    if (argc == 3) {
        limit = atof(argv[2]);
    } else if (argc != 2) {
        fprintf(stderr, "usage: test-memory MODEL.gguf [LIMIT]\n");
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    ggml_backend_load_all();
    model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        fprintf(stderr, "test-memory: %s: not loaded\n", argv[1]);
        return 2;
    }
    const std::unique_ptr<llama_model, decltype(&llama_model_free)> owner(model, llama_model_free); // freed after the contexts below
    n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));

    const tokens a = text(200, 1), b = text(150, 2);
    context ref_ctx;
    const auto ref = ref_ctx.eval(a);
    context ref_b;
    const auto other = ref_b.eval(b);

    for (size_t piece : { 1, 7, 16, 33 }) {
        for (uint32_t n_ubatch : { 1, 5, 64 }) {
            context c(1, n_ubatch);
            check(same(c.eval(a, piece), ref), "pieces of " + std::to_string(piece) + ", micro-batches of " + std::to_string(n_ubatch));
        }
    }

    for (bool unified : { false, true }) {
        context c(4, 16, unified);
        std::vector<logits> got_a, got_b, out;
        size_t i = 0, j = 0;
        for (int step = 0; i < a.size() || j < b.size(); ++step) { // uneven shares of two sequences in each batch
            std::vector<std::pair<std::vector<llama_seq_id>, llama_token>> in;
            std::vector<int> who;
            for (int n = 0; n < 1 + step % 5 && i < a.size(); ++n) { in.push_back({ { 3 }, a[i++] }); who.push_back(0); }
            for (int n = 0; n < 1 + step % 3 && j < b.size(); ++n) { in.push_back({ { 1 }, b[j++] }); who.push_back(1); }
            out.clear();
            check(c.decode(in, out) == 0, "interleaved decode");
            for (size_t n = 0; n < out.size(); ++n) {
                (who[n] ? got_b : got_a).push_back(out[n]);
            }
        }
        check(same(got_a, ref) && same(got_b, other), std::string("two sequences interleaved, unified ") + (unified ? "on" : "off"));
    }

    {   // copies are real: both go on, each its own way
        context c;
        c.eval(part(a, 0, 90), 16, 2);
        llama_memory_seq_cp(c.mem(), 2, 0, -1, -1);
        c.eval(part(b, 0, 60), 16, 2);
        check(same(c.eval(part(a, 90, 200), 9, 0), part(ref, 90, 200)), "copy continues as the original");
        llama_memory_seq_cp(c.mem(), 0, 1, 5, 20);
        check(c.end(1) == 0, "copy of a part is refused: destination empty");
        llama_memory_seq_keep(c.mem(), 0);
        check(c.end(0) == 200 && c.end(2) == 0, "keep one sequence");
    }

    {   // a token given to several sequences is in all of them
        context c;
        std::vector<logits> out;
        for (size_t i = 0; i < 70; ++i) {
            check(c.decode({ { { 1, 3 }, a[i] } }, out) == 0, "shared token");
        }
        check(same(c.eval(part(a, 70, 120), 8, 3), part(ref, 70, 120)) && same(c.eval(part(a, 70, 120), 5, 1), part(ref, 70, 120)), "sequences with a shared beginning");
        c.eval(part(b, 0, 1), 1, 3);
        c.eval(part(a, 120, 121), 1, 1);
        check(c.decode({ { { 1, 3 }, a[0] } }, out) != 0, "shared token refused when histories differ");
    }

    for (llama_state_seq_flags flags : { (llama_state_seq_flags) 0, (llama_state_seq_flags) LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY }) {
        for (size_t n : { 1, 20, 111 }) { // shorter and longer than the window
            context c;
            c.eval(part(a, 0, n), 16, 1);
            const auto saved = save(c, 1, flags);
            c.eval(part(b, 0, 120), 16, 1); // overwrites the ring
            check(restore(c, 1, saved, flags) == saved.size(), "restore in place");
            check(same(c.eval(part(a, n, 200), 16, 1), part(ref, n, 200)), "continues after restore in place");
            context d(2, 7);
            check(restore(d, 0, saved, flags) == saved.size(), "restore elsewhere");
            check(same(d.eval(part(a, n, 200), 3, 0), part(ref, n, 200)), "continues after restore elsewhere, other micro-batch");

            for (size_t cut : { (size_t) 0, (size_t) 4, (size_t) 30, saved.size()/2, saved.size() - 1 }) {
                auto bad = part(saved, 0, cut);
                llama_memory_seq_rm(d.mem(), 1, -1, -1);
                d.eval({ a[0] }, 1, 1);
                check(restore(d, 1, bad, flags) == 0, "cut state is refused");
                check(d.end(1) <= 1 && d.end(0) == 200, "cut state leaves its sequence empty or untouched, others alone");
            }
            auto bad = saved;
            bad[8 + 5*4] ^= 1; // the window
            llama_memory_seq_rm(d.mem(), 1, -1, -1);
            d.eval({ a[0] }, 1, 1);
            check(restore(d, 1, bad, flags) == 0 && d.end(1) == 1, "state of another model is refused, nothing changes");
        }
    }

    {   // positions of a saved sequence: none, one token, and what no sequence can have
        for (int32_t n : { 0, 1, 40 }) {
            context c;
            if (n > 0) {
                c.eval(part(a, 0, n), 16, 1);
            }
            const auto saved = save(c, 1);
            c.eval(part(b, 0, 9), 16, 1);
            check(restore(c, 1, saved) == saved.size() && c.end(1) == n, "restores " + std::to_string(n) + " tokens");
            check(same(c.eval(part(a, n, 60), 16, 1), part(ref, n, 60)), "continues after " + std::to_string(n) + " tokens");
            const int32_t meta[] = { 1, n > 0 ? 0 : -1, n - 1 };
            const auto at = std::search(saved.begin(), saved.end(), (const uint8_t *) meta, (const uint8_t *) (meta + 3)) - saved.begin();
            check((size_t) at < saved.size(), "positions are in the saved state");
            for (auto [first, last] : { std::pair<int32_t, int32_t> { n, n - 1 }, { -1, n }, { -2, n - 1 }, { -2, -2 }, { -2, -1 }, { INT32_MIN, n - 1 }, { 0, INT32_MIN }, { 0, -1 } }) {
                auto bad = saved;
                memcpy(&bad[at + 4], &first, 4);
                memcpy(&bad[at + 8], &last, 4);
                context d;
                d.eval(part(b, 0, 9), 16, 1);
                check(restore(d, 1, bad) == 0 && d.end(1) == 9, "positions " + std::to_string(first) + " .. " + std::to_string(last) + " are refused");
            }
        }
    }

    {   // whole context
        context c;
        c.eval(part(a, 0, 77), 16, 2);
        c.eval(part(b, 0, 33), 16, 0);
        std::vector<uint8_t> all(llama_state_get_size(c.ctx));
        check(llama_state_get_data(c.ctx, all.data(), all.size()) == all.size(), "save all");
        context d;
        d.eval(part(b, 0, 9), 16, 1);
        check(llama_state_set_data(d.ctx, all.data(), all.size()) == all.size(), "restore all");
        check(d.end(1) == 0, "restore all replaces all");
        check(same(d.eval(part(a, 77, 200), 16, 2), part(ref, 77, 200)) && same(d.eval(part(b, 33, 150), 16, 0), part(other, 33, 150)), "all continue");
    }

    {   // sizes: fixed part plus at most one window of rows, and nothing that grows with tokens
        context c(1, 16);
        const size_t bytes = llama_spikingbrain_state_bytes(c.ctx);
        std::vector<size_t> size;
        for (size_t n = 0; n < 200; ++n) {
            c.eval({ a[n] });
            size.push_back(save(c, 0).size());
        }
        const size_t row = size[1] - size[0];
        const size_t window = std::unique(size.begin(), size.end()) - size.begin();
        check(row > 0 && size[window - 1] - size[0] == (window - 1)*row && window < 200, "saved size grows by one row until the window is full");
        check(llama_spikingbrain_state_bytes(c.ctx) == bytes, "allocated bytes stay");
        const size_t two = llama_spikingbrain_state_bytes(context(2, 16).ctx);
        const size_t each = two - bytes; // of the rest, padding and the initial states
        check(llama_spikingbrain_state_bytes(context(3, 16).ctx) - two - each + 2048 < 4096 && bytes < 2*each, "allocated bytes per sequence");
    }

    {   // removal: whole, or a tail that can be taken back; nothing else
        context c(2, 16);
        const int n = llama_n_rs_seq(c.ctx);
        check(n == LLAMA_SPIKINGBRAIN_N_RS_SEQ, "tails can be taken back without asking for it");
        c.eval(part(a, 0, 100), 16);
        check(llama_memory_seq_pos_min(c.mem(), 0) == 99 - n, "the first position tells how far");
        check(!llama_memory_seq_rm(c.mem(), 0, 99 - n, -1) && c.end(0) == 100, "tail beyond that is refused");
        check(!llama_memory_seq_rm(c.mem(), 0, 10, 20) && !llama_memory_seq_rm(c.mem(), 0, 0, 20), "middle and front are refused");
        check(llama_memory_seq_rm(c.mem(), 0, 100, -1) && llama_memory_seq_rm(c.mem(), 1, -1, -1), "removing nothing succeeds");
        check(llama_memory_seq_rm(c.mem(), 0, 96, -1) && llama_memory_seq_rm(c.mem(), 0, 79, -1) && c.end(0) == 79, "tails can be removed, over micro-batches");
        check(!llama_memory_seq_rm(c.mem(), 0, 60, -1), "as many as there were");
        check(same(c.eval(part(a, 79, 200), 16), part(ref, 79, 200)), "continues after removal");
        check(llama_memory_seq_rm(c.mem(), 0, -1, -1) && c.end(0) == 0, "whole sequence can be removed");
        check(same(c.eval(part(a, 0, 50), 16), part(ref, 0, 50)), "begins again after removal");
    }

    for (int n : { 1, 2, 31, 32 }) { // the states are those that the tokens left there, bit for bit
        context c(1, 16), d(1, 16);
        c.eval(part(a, 0, 90), 1);
        d.eval(part(a, 0, 90 - n), 1);
        check(llama_memory_seq_rm(c.mem(), 0, 90 - n, -1) && save(c, 0) == save(d, 0), "same bits after taking back " + std::to_string(n));
    }

    {   // what a batch must not hold
        context c;
        c.eval(part(a, 0, 20), 16, 1);
        std::vector<logits> out;
        for (auto [first, second] : { std::pair<llama_pos, llama_pos> { -1, 0 }, { 19, 20 }, { 20, 20 }, { 20, 22 }, { 21, 22 } }) {
            for (llama_seq_id s : { 0, 1 }) {
                if (s == 0 && first > 0 && second == first + 1) {
                    continue; // an empty sequence begins where it likes
                }
                llama_batch bt = llama_batch_init(2, 0, 1);
                bt.n_tokens = 2;
                for (int i = 0; i < 2; ++i) {
                    bt.token[i] = a[i]; bt.pos[i] = i ? second : first; bt.n_seq_id[i] = 1; bt.seq_id[i][0] = s; bt.logits[i] = 1;
                }
                check(llama_decode(c.ctx, bt) != 0 && c.end(1) == 20 && c.end(0) == 0, "positions " + std::to_string(first) + ", " + std::to_string(second) + " are refused");
                llama_batch_free(bt);
            }
        }
        check(same(c.eval(part(a, 20, 60), 16, 1), part(ref, 20, 60)), "continues after what was refused");
    }

    {   // the ids of a shared token have no order
        context c;
        std::vector<std::pair<std::vector<llama_seq_id>, llama_token>> in;
        std::vector<logits> out;
        for (size_t i = 0; i < 60; ++i) {
            in.push_back({ i % 2 ? std::vector<llama_seq_id> { 3, 1 } : std::vector<llama_seq_id> { 1, 3 }, a[i] });
        }
        check(c.decode(in, out) == 0 && same(out, part(ref, 0, 60)), "shared tokens, their ids in turn");
        check(same(c.eval(part(a, 60, 90), 7, 1), part(ref, 60, 90)) && same(c.eval(part(a, 60, 90), 7, 3), part(ref, 60, 90)), "continue each");
    }

    for (auto pooling : { LLAMA_POOLING_TYPE_NONE, LLAMA_POOLING_TYPE_LAST, LLAMA_POOLING_TYPE_MEAN }) { // embeddings of texts with a common beginning
        context c(4, 16, false, 1, pooling), alone(4, 256, false, 1, pooling);
        const int n_embd = llama_model_n_embd(model);
        const auto embedding = [&](const context & x, int row, llama_seq_id s) {
            const float * e = pooling == LLAMA_POOLING_TYPE_NONE ? llama_get_embeddings_ith(x.ctx, row) : llama_get_embeddings_seq(x.ctx, s);
            return e ? logits(e, e + n_embd) : logits(n_embd, NAN);
        };
        const auto close = [&](const logits & x, const logits & y) {
            float err = 0, mag = 0;
            for (int i = 0; i < n_embd; ++i) {
                err = std::max(err, std::isfinite(x[i]) ? std::fabs(x[i] - y[i]) : INFINITY);
                mag = std::max(mag, std::fabs(y[i]));
            }
            return err <= 5*limit*mag;
        };
        std::vector<std::pair<std::vector<llama_seq_id>, llama_token>> in;
        for (int i = 0; i < 5; ++i) { in.push_back({ { 0, 1 }, a[i] }); }
        for (int i = 0; i < 4; ++i) { in.push_back({ { 0 }, a[5 + i] }); }
        for (int i = 0; i < 3; ++i) { in.push_back({ { 1 }, b[i] }); }
        const int rc = c.decode_only(in);
        if (pooling == LLAMA_POOLING_TYPE_MEAN) {
            check(rc != 0, "a pooled mean of shared tokens is refused");
            continue;
        }
        check(rc == 0, "shared tokens in an embedding context");
        for (llama_seq_id s : { 0, 1 }) {
            tokens t = part(a, 0, 5);
            const tokens rest = s == 0 ? part(a, 5, 9) : part(b, 0, 3);
            t.insert(t.end(), rest.begin(), rest.end());
            in.clear();
            for (llama_token x : t) { in.push_back({ { s }, x }); }
            check(alone.decode_only(in) == 0 && close(embedding(c, s == 0 ? 8 : 11, s), embedding(alone, t.size() - 1, s)), "embedding of sequence " + std::to_string(s) + " with a shared beginning");
        }
    }

    {   // rows of logits that are given are a batch's, until the next one
        context c;
        const std::vector<float> ones(n_vocab, 1.0f), twos(n_vocab, 2.0f);
        const float * rows[] = { ones.data(), twos.data() };
        check(llama_spikingbrain_set_logits(c.ctx, rows, 1), "rows are taken before anything is decoded");
        c.eval(part(a, 0, 20), 16, 1);
        const float * l = llama_get_logits_ith(c.ctx, -1);
        const std::vector<float> before(l, l + n_vocab);
        check(llama_spikingbrain_set_logits(c.ctx, rows, 2) && llama_get_logits_ith(c.ctx, 0)[0] == 1.0f && llama_get_logits_ith(c.ctx, 1)[n_vocab - 1] == 2.0f &&
            llama_get_logits_ith(c.ctx, -1)[0] == 2.0f, "rows are given");
        check(!llama_spikingbrain_set_logits(c.ctx, rows, 1 << 20) && llama_get_logits_ith(c.ctx, 1)[0] == 2.0f, "more than a decode may give are refused");
        check(llama_get_logits_ith(c.ctx, 2) == nullptr, "and no others");
        llama_memory_clear(c.mem(), false);
        c.eval(part(a, 0, 20), 16, 1);
        check(memcmp(llama_get_logits_ith(c.ctx, -1), before.data(), before.size()*sizeof(float)) == 0, "a decode gives its own");
    }

    {   // an interrupted decode leaves the state of the last finished micro-batch
        for (int stop_after : { 0, 3, 40, 101, 202 }) {
            context c(2, 16);
            c.eval(part(a, 0, 50), 50);
            static int countdown;
            countdown = stop_after;
            llama_set_abort_callback(c.ctx, [](void *) { return countdown-- <= 0; }, nullptr);
            std::vector<logits> out;
            std::vector<std::pair<std::vector<llama_seq_id>, llama_token>> in;
            for (size_t i = 50; i < 150; ++i) {
                in.push_back({ { 0 }, a[i] });
            }
            const int rc = c.decode(in, out);
            llama_set_abort_callback(c.ctx, nullptr, nullptr);
            const int n = c.end(0);
            check(rc == 2 && n >= 50 && n < 150 && (n - 50) % 16 == 0, "interrupted after " + std::to_string(stop_after) + " calls at a micro-batch");
            check(same(c.eval(part(a, n, 200), 16), part(ref, n, 200)), "continues after an interruption");
        }
    }

    // positions far out: the rotary angles are still exact, so a shifted text gives the same logits. Their last bits
    // differ, though, which moves counts of a spiking model to their neighbours: only float models are held to it.
    if (limit <= 1e-3f) {
        context c(1, 16);
        llama_batch bt = llama_batch_init(60, 0, 1);
        bt.n_tokens = 60;
        for (int i = 0; i < 60; ++i) {
            bt.token[i] = a[i]; bt.pos[i] = 1000000000 + i; bt.n_seq_id[i] = 1; bt.seq_id[i][0] = 0; bt.logits[i] = 1;
        }
        check(llama_decode(c.ctx, bt) == 0, "decode at position 10^9");
        std::vector<logits> out;
        for (int i = 0; i < 60; ++i) {
            const float * l = llama_get_logits_ith(c.ctx, i);
            out.emplace_back(l, l + n_vocab);
        }
        llama_batch_free(bt);
        check(same(out, part(ref, 0, 60)), "same logits at position 10^9");
    }

    return report("memory");
}
