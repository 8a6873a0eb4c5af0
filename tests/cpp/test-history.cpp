// Histories of sequences, held to a plain model of them: it keeps the tokens, and computes them anew. usage: test-history MODEL.gguf [LIMIT]
//
// Each line of the input is a history, each answer "ok STEPS" or "step I (WORDS): what is wrong". A history:
//   n_seq n_ubatch n_back | step | step | ...
// masks name sequences by bits, modulo what there is, so that any part of a history is one too (tests/test_memory_history.py shrinks them):
//   dec MASK:N[:r] ...     N tokens to each set of sequences, in one batch; r: their ids named backwards
//   cut K MASK:N           the same of one set, interrupted at the K-th question
//   bad KIND S             a batch that must be refused: 0 position -1, 1 a gap, 2 a position twice, 3 one that is there
//   back S N               as many of the last tokens as can be taken back, modulo N
//   rm S N                 the last N tokens;   mid S: some in the middle;   del S: all
//   cp A B | part A B | keep S | clear | save S FLAGS | load S | saveall | loadall | row S

#include "check.h"

#include "llama.h"
#include "llama-spikingbrain.h"

#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>

static llama_model * model;
static int   n_vocab;
static float limit = 1e-3f;

struct failed : std::runtime_error { using std::runtime_error::runtime_error; };

static void expect(bool ok, const std::string & what) {
    if (!ok) {
        throw failed(what);
    }
}

using context_ptr = std::unique_ptr<llama_context, decltype(&llama_free)>;

static context_ptr make_context(uint32_t n_seq, uint32_t n_ubatch, uint32_t n_back) {
    auto p = llama_context_default_params();
    p.n_ctx = 0;
    p.n_batch = 512;
    p.n_ubatch = n_ubatch;
    p.n_seq_max = n_seq;
    p.n_rs_seq = n_back;
    p.n_threads = p.n_threads_batch = 1;
    return context_ptr(llama_init_from_model(model, p), llama_free);
}

// what a sequence is
struct plain {
    std::vector<llama_token> tokens;
    std::vector<int64_t> origin; // of each token: equal only where it was computed once
    size_t fixed = 0;            // tokens before it cannot be taken back
};

struct saved { std::vector<plain> seqs; std::vector<uint8_t> bytes; llama_state_seq_flags flags = 0; };

struct history {
    uint32_t n_seq, n_ubatch;
    size_t   n_back;
    context_ptr ctx, again;
    std::vector<plain> seqs;
    saved one, all;
    int64_t count = 0;

    history(uint32_t n_seq, uint32_t n_ubatch, uint32_t n_back) : n_seq(n_seq), n_ubatch(n_ubatch), n_back(n_back),
        ctx(make_context(n_seq, n_ubatch, n_back)), again(make_context(1, 512, 1)), seqs(n_seq) {}

    llama_memory_t mem() const { return llama_get_memory(ctx.get()); }
    int32_t seq(int64_t i) const { return i % n_seq; }

    //
    // the model of a sequence
    //

    void append(const std::vector<int32_t> & ids, const std::vector<llama_token> & t) {
        for (int32_t s : ids) {
            plain p = seqs[s];
            p.tokens.insert(p.tokens.end(), t.begin(), t.end());
            for (size_t i = 0; i < t.size(); ++i) {
                p.origin.push_back(count + i);
            }
            p.fixed = std::max<int64_t>(p.fixed, (int64_t) p.tokens.size() - (int64_t) n_back);
            seqs[s] = p;
        }
        count += t.size();
    }

    void cut_to(int32_t s, size_t n) {
        plain p = n ? seqs[s] : plain();
        p.tokens.resize(n);
        p.origin.resize(n);
        seqs[s] = p;
    }

    //
    // what must hold
    //

    std::vector<float> anew(const std::vector<llama_token> & tokens) const {
        llama_memory_clear(llama_get_memory(again.get()), false);
        for (size_t i = 0; i < tokens.size(); i += 512) {
            const int32_t n = std::min<size_t>(512, tokens.size() - i);
            expect(llama_decode(again.get(), llama_batch_get_one(const_cast<llama_token *>(tokens.data() + i), n)) == 0, "the plain model does not decode");
        }
        const float * l = llama_get_logits_ith(again.get(), -1);
        return std::vector<float>(l, l + n_vocab);
    }

    void compare(const float * got, const std::vector<llama_token> & tokens) const {
        const auto want = anew(tokens);
        float err = 0, mag = 0;
        for (int i = 0; i < n_vocab; ++i) {
            err = std::max(err, std::isfinite(got[i]) ? std::fabs(got[i] - want[i]) : INFINITY);
            mag = std::max(mag, std::fabs(want[i]));
        }
        expect(err <= limit*mag, "logits after " + std::to_string(tokens.size()) + " tokens differ by " + std::to_string(err) + " of " + std::to_string(mag));
    }

    void positions() const {
        for (uint32_t s = 0; s < n_seq; ++s) {
            const plain & p = seqs[s];
            const int32_t last = llama_memory_seq_pos_max(mem(), s), first = llama_memory_seq_pos_min(mem(), s);
            expect(last == (int32_t) p.tokens.size() - 1, "sequence " + std::to_string(s) + " ends at " + std::to_string(last) + ", not " + std::to_string((int) p.tokens.size() - 1));
            const int32_t fixed = p.tokens.empty() ? -1 : std::max((int32_t) p.fixed - 1, 0);
            expect(first == fixed, "sequence " + std::to_string(s) + " can be cut back to " + std::to_string(first) + ", not " + std::to_string(fixed));
        }
    }

    //
    // steps
    //

    struct group { std::vector<int32_t> ids; std::vector<llama_token> tokens; bool backwards; };

    group parse(const std::string & text) const {
        unsigned mask = 1, n = 1;
        char r = 0;
        sscanf(text.c_str(), "%u:%u:%c", &mask, &n, &r);
        mask %= 1u << n_seq;
        group g = { {}, {}, r == 'r' };
        for (uint32_t s = 0; s < n_seq; ++s) {
            if (mask >> s & 1) {
                g.ids.push_back(s);
            }
        }
        if (g.ids.empty()) {
            g.ids.push_back(0);
        }
        for (unsigned i = 0; i < n % 100; ++i) {
            g.tokens.push_back((count*31 + i*i*7 + mask*13 + 5) % std::min(n_vocab, 400));
        }
        return g;
    }

    struct batch {
        llama_batch b = llama_batch_init(2048, 0, 32);
        ~batch() { llama_batch_free(b); }
        void add(llama_token t, llama_pos pos, const std::vector<int32_t> & ids, bool backwards, bool output) {
            b.token[b.n_tokens]    = t;
            b.pos[b.n_tokens]      = pos;
            b.n_seq_id[b.n_tokens] = ids.size();
            for (size_t j = 0; j < ids.size(); ++j) {
                b.seq_id[b.n_tokens][j] = ids[backwards ? ids.size() - 1 - j : j];
            }
            b.logits[b.n_tokens++] = output;
        }
    };

    void add(batch & b, const group & g, std::vector<size_t> & ends, bool turn = false) const {
        for (size_t i = 0; i < g.tokens.size(); ++i) {
            // the order of ids may differ from token to token
            b.add(g.tokens[i], ends[g.ids[0]] + i, g.ids, g.backwards && (!turn || i % 2), i + 1 == g.tokens.size());
        }
        for (int32_t s : g.ids) {
            ends[s] += g.tokens.size();
        }
    }

    void decode(std::istringstream & in) {
        const auto before = seqs;
        std::vector<size_t> ends;
        for (const auto & p : seqs) {
            ends.push_back(p.tokens.size());
        }
        batch b;
        std::vector<group> groups;
        bool possible = true;
        for (std::string text; in >> text && groups.size() < 4; ) {
            group g = parse(text);
            if (g.tokens.empty()) {
                continue;
            }
            for (int32_t s : g.ids) {
                possible = possible && seqs[s].origin == seqs[g.ids[0]].origin && seqs[s].tokens.size() == ends[g.ids[0]];
            }
            add(b, g, ends, true);
            append(g.ids, g.tokens);
            groups.push_back(g);
        }
        if (groups.empty()) {
            return;
        }
        const int rc = llama_decode(ctx.get(), b.b);
        expect((rc == 0) == possible, possible ? "refused" : "accepted, though the sequences differ");
        if (!possible) {
            restore_model(before);
            return;
        }
        size_t end = 0;
        std::vector<std::vector<llama_token>> texts; // at the end of each group
        std::vector<plain> now = before;
        for (const auto & g : groups) {
            for (int32_t s : g.ids) {
                now[s].tokens.insert(now[s].tokens.end(), g.tokens.begin(), g.tokens.end());
            }
            end += g.tokens.size();
            compare(llama_get_logits_ith(ctx.get(), end - 1), now[g.ids[0]].tokens);
        }
    }

    // a refused batch changes nothing
    void restore_model(const std::vector<plain> & before) { seqs = before; }

    void interrupt(std::istringstream & in) {
        int64_t k = 0;
        std::string text;
        in >> k >> text;
        group g = parse(text);
        const plain & first = seqs[g.ids[0]];
        for (int32_t s : g.ids) {
            if (seqs[s].origin != first.origin) {
                return;
            }
        }
        if (g.tokens.empty()) {
            return;
        }
        std::vector<size_t> ends;
        for (const auto & p : seqs) {
            ends.push_back(p.tokens.size());
        }
        const size_t begin = ends[g.ids[0]];
        batch b;
        add(b, g, ends);
        static int64_t countdown;
        countdown = k % 400;
        llama_set_abort_callback(ctx.get(), [](void *) { return countdown-- <= 0; }, nullptr);
        const int rc = llama_decode(ctx.get(), b.b);
        llama_set_abort_callback(ctx.get(), nullptr, nullptr);
        const size_t end = llama_memory_seq_pos_max(mem(), g.ids[0]) + 1;
        expect(rc == 0 ? end == begin + g.tokens.size() : rc == 2, "interrupted decode returns " + std::to_string(rc));
        expect(end >= begin && end <= begin + g.tokens.size() && (rc == 0 || (end - begin) % n_ubatch == 0), "interrupted not at a micro-batch");
        g.tokens.resize(end - begin);
        if (!g.tokens.empty()) {
            append(g.ids, g.tokens);
        }
    }

    void bad(std::istringstream & in) {
        int64_t kind = 0, s = 0;
        in >> kind >> s;
        s = seq(s);
        const llama_pos end = seqs[s].tokens.size();
        batch b;
        switch (kind % 4) {
            case 0: b.add(1, -1, { (int32_t) s }, false, true); break;
            case 1: b.add(1, end, { (int32_t) s }, false, true); b.add(2, end + 2, { (int32_t) s }, false, true); break;
            case 2: b.add(1, end, { (int32_t) s }, false, true); b.add(2, end,     { (int32_t) s }, false, true); break;
            case 3: b.add(1, end > 0 ? end - 1 : -5, { (int32_t) s }, false, true); break;
        }
        expect(llama_decode(ctx.get(), b.b) != 0, "a batch with wrong positions is accepted");
    }

    void remove(int32_t s, int64_t n) {
        const size_t size = seqs[s].tokens.size(), keep = (size_t) n > size ? 0 : size - n;
        const bool possible = n == 0 || keep == 0 || keep >= seqs[s].fixed;
        expect(llama_memory_seq_rm(mem(), s, keep, -1) == possible, possible ? "refused" : "accepted, though it lies too far back");
        if (possible && keep < size) {
            cut_to(s, keep);
        }
    }

    std::vector<uint8_t> bytes_of(int32_t s, llama_state_seq_flags flags = 0) const {
        llama_context * c = ctx.get();
        std::vector<uint8_t> data(s < 0 ? llama_state_get_size(c) : llama_state_seq_get_size_ext(c, s, flags));
        expect((s < 0 ? llama_state_get_data(c, data.data(), data.size()) : llama_state_seq_get_data_ext(c, data.data(), data.size(), s, flags)) == data.size(), "saved size");
        return data;
    }

    void loaded(int32_t s, plain p) {
        p.fixed = p.tokens.size();
        if (!p.tokens.empty()) {
            p.origin.back() = count++; // what was restored is the same as nothing else
        }
        seqs[s] = p;
    }

    void step(const std::string & text) {
        std::istringstream in(text);
        std::string word;
        int64_t a = 0, b = 0;
        in >> word;
        if (word == "dec") { return decode(in); }
        if (word == "cut") { return interrupt(in); }
        if (word == "bad") { return bad(in); }
        in >> a >> b;
        const int32_t s = seq(a), t = seq(b);
        const int64_t size = seqs[s].tokens.size();
        if (word == "rm") {
            remove(s, b % (3*(int64_t) n_back + 3));
        } else if (word == "back") {
            remove(s, b % (size - (int64_t) seqs[s].fixed + 1));
        } else if (word == "mid") {
            expect(size < 3 || !llama_memory_seq_rm(mem(), s, 1, size - 1), "a part of the middle is removed");
        } else if (word == "del") {
            expect(llama_memory_seq_rm(mem(), s, -1, -1), "a whole sequence is not removed");
            seqs[s] = plain();
        } else if (word == "cp") {
            llama_memory_seq_cp(mem(), s, t, -1, -1);
            if (s != t) { seqs[t] = seqs[s]; }
        } else if (word == "part") {
            if (s != t && size > 1) {
                llama_memory_seq_cp(mem(), s, t, 1, -1);
                seqs[t] = plain();
            }
        } else if (word == "keep") {
            llama_memory_seq_keep(mem(), s);
            for (uint32_t i = 0; i < n_seq; ++i) {
                if ((int32_t) i != s) { seqs[i] = plain(); }
            }
        } else if (word == "clear") {
            llama_memory_clear(mem(), a % 2);
            for (uint32_t i = 0; i < n_seq; ++i) { seqs[i] = plain(); }
        } else if (word == "save") {
            const llama_state_seq_flags flags = b % 2 ? LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY : 0;
            one = { { seqs[s] }, bytes_of(s, flags), flags };
        } else if (word == "load") {
            if (!one.bytes.empty()) {
                expect(llama_state_seq_set_data_ext(ctx.get(), one.bytes.data(), one.bytes.size(), s, one.flags) == one.bytes.size(), "not restored");
                loaded(s, one.seqs[0]);
                expect(bytes_of(s, one.flags).size() == one.bytes.size(), "another size after restoring");
            }
        } else if (word == "saveall") {
            all = { seqs, bytes_of(-1) };
        } else if (word == "loadall") {
            if (!all.bytes.empty()) {
                expect(llama_state_set_data(ctx.get(), all.bytes.data(), all.bytes.size()) == all.bytes.size(), "not restored");
                for (uint32_t i = 0; i < n_seq; ++i) { loaded(i, all.seqs[i]); }
            }
        } else if (word == "row") {
            const std::vector<float> row(n_vocab, 1.0f + s);
            const float * all[] = { row.data() };
            expect(llama_spikingbrain_set_logits(ctx.get(), all, 1), "a row is not taken");
            expect(llama_get_logits_ith(ctx.get(), 0)[n_vocab - 1] == 1.0f + s, "a row is not given");
        } else {
            throw failed("unknown step");
        }
    }

    // whatever a sequence went through, it goes on as its tokens do
    void finish() {
        for (uint32_t s = 0; s < n_seq; ++s) {
            if (seqs[s].tokens.empty()) {
                continue;
            }
            batch b;
            std::vector<llama_token> text = seqs[s].tokens;
            text.push_back(3);
            b.add(3, text.size() - 1, { (int32_t) s }, false, true);
            expect(llama_decode(ctx.get(), b.b) == 0, "sequence " + std::to_string(s) + " does not go on");
            compare(llama_get_logits_ith(ctx.get(), 0), text);
        }
    }
};

static std::string run(const std::string & line) {
    std::istringstream in(line);
    uint32_t n_seq = 1, n_ubatch = 1, n_back = 1;
    in >> n_seq >> n_ubatch >> n_back;
    history h(std::max(1u, n_seq % 9), std::max(1u, n_ubatch % 65), std::max(1u, n_back % 65));
    std::string text;
    std::getline(in, text, '|');
    int i = 0;
    try {
        for (; std::getline(in, text, '|'); ++i) {
            h.step(text);
            h.positions();
        }
        text = "finish";
        h.finish();
    } catch (const failed & e) {
        return "step " + std::to_string(i) + " (" + text + "): " + e.what();
    }
    return "ok " + std::to_string(i);
}

int main(int argc, char ** argv) {
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: test-history MODEL.gguf [LIMIT]\n");
        return 2;
    }
    limit = argc == 3 ? atof(argv[2]) : limit;
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    ggml_backend_load_all();
    model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        fprintf(stderr, "test-history: %s: not loaded\n", argv[1]);
        return 2;
    }
    n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (std::string line; std::getline(std::cin, line); ) {
        std::cout << run(line) << std::endl;
    }
    llama_model_free(model);
    return 0;
}
