// The bookkeeping of sequences without a model: its answers are carried out on rows and journals that hold, instead of states,
// the tokens that made them. So every state that it names can be compared with what the sequence has read, at any interruption.

#include "check.h"

#include "spikingbrain-sequences.h"

#include <algorithm>

using state = std::vector<int>; // the tokens of the recurrence, in order

struct machine {
    spikingbrain_sequences seqs;
    std::mt19937 rng;

    std::vector<state> rows;
    std::vector<std::vector<int>> journal;
    std::vector<std::vector<int>> text;  // of each sequence
    std::vector<int> fixed;              // how many of its tokens cannot be taken back
    int n_token = 0;

    machine(uint32_t n_seq, uint32_t n_back, uint32_t seed) : seqs(n_seq, n_back, 0, seed % 2), rng(seed),
        rows(seqs.n_rows()), journal(n_seq, std::vector<int>(seqs.n_journal(), -1)), text(n_seq), fixed(n_seq) {}

    int random(int n) { return rng() % n; }

    state row(int i) const { return i < 0 ? state() : rows[i]; }

    void carry_out(const spikingbrain_advance & a, const std::vector<int> & tokens) {
        for (const auto & step : a.steps) {
            check(step.src >= -1 && step.src < seqs.n_rows() && step.dst >= 0 && step.dst < (int) (seqs.N_STATES*seqs.size()), "rows of steps exist, the initial one is not written");
            state s = row(step.src);
            for (int i = 0; i < step.n; ++i) {
                s.push_back(step.journal ? journal[a.seq][(step.first + i) % seqs.n_journal()] : tokens[step.first + i]);
            }
            rows[step.dst] = s;
        }
        for (size_t t = a.journal_token; t < tokens.size(); ++t) {
            journal[a.seq][(a.journal_at + t - a.journal_token) % seqs.n_journal()] = tokens[t];
        }
    }

    void copy(int from, int to) {
        std::copy_n(rows.begin() + seqs.N_STATES*from, (int) seqs.N_STATES, rows.begin() + seqs.N_STATES*to);
        journal[to] = journal[from];
    }

    void compare(const char * when) {
        for (size_t s = 0; s < seqs.size(); ++s) {
            check(seqs.last(s) == (int) text[s].size() - 1, std::string(when) + ": the last position");
            check(text[s].empty() || row(seqs.row(s)) == text[s], std::string(when) + ": the current row has read the sequence's tokens");
            check(text[s].empty() || seqs.fixed(s) == std::max(fixed[s] - 1, 0), std::string(when) + ": what can be taken back");
        }
    }

    // a micro-batch of some sequences; interrupted: as in a layer that had its turn (ran) and in one that had not
    void decode(bool interrupted, bool ran) {
        const int n = 1 + random(random(3) ? 3 : 40);
        spikingbrain_groups groups;
        for (size_t s = 0; s < seqs.size(); ++s) {
            if (random(2)) {
                spikingbrain_group g = { { (int) s }, (int) text[s].size(), n };
                for (size_t t = s + 1; t < seqs.size() && random(2); ++t) {
                    if (seqs.content(t) == seqs.content(s)) {
                        g.seqs.push_back(t);
                        s = t;
                    }
                }
                groups.push_back(g);
            }
        }
        if (groups.empty()) {
            return;
        }
        check(seqs.check({ groups }).empty(), "a micro-batch in order can be decoded");
        std::vector<spikingbrain_advance> first;
        const auto advances = seqs.begin(groups, first);
        for (const auto & a : first) {
            carry_out(a, {});
        }
        std::vector<std::vector<int>> tokens;
        for (size_t i = 0; i < groups.size(); ++i) {
            const int owner = groups[i].seqs[0];
            check(row(advances[i].read) == text[owner] && advances[i].seq == owner && advances[i].pos_first == 0, "reads the owner's state");
            tokens.emplace_back();
            for (int j = 0; j < n; ++j) {
                tokens.back().push_back(n_token++);
            }
            if (!interrupted || ran) {
                carry_out(advances[i], tokens.back());
            }
        }
        if (interrupted) {
            for (const auto & a : seqs.cancel()) {
                carry_out(a, {});
            }
            return;
        }
        for (const auto & [from, to] : seqs.end()) {
            copy(from, to);
        }
        for (size_t i = 0; i < groups.size(); ++i) {
            for (int s : groups[i].seqs) {
                text[s].insert(text[s].end(), tokens[i].begin(), tokens[i].end());
                fixed[s] = std::max(fixed[s], (int) text[s].size() - seqs.n_back());
            }
        }
    }

    void remove(int s) {
        const int n = random(2*seqs.n_back() + 2), keep = std::max(0, (int) text[s].size() - n);
        std::vector<spikingbrain_advance> todo;
        const bool possible = n == 0 || keep == 0 || keep >= fixed[s];
        check(seqs.remove(s, keep, -1, todo) == possible, "a tail is removed if it can be taken back");
        for (const auto & a : todo) {
            carry_out(a, {});
        }
        if (possible) {
            text[s].resize(keep);
            fixed[s] = keep == 0 ? 0 : fixed[s];
        }
    }

    void step() {
        const int s = random(seqs.size()), t = random(seqs.size());
        switch (random(10)) {
            case 0: case 1: case 2: decode(false, true); break;
            case 3: decode(true, false); break;
            case 4: decode(true, true); break;
            case 5: case 6: remove(s); break;
            case 7:
                if (s != t) {
                    seqs.copy(s, t);
                    copy(s, t);
                    text[t] = text[s];
                    fixed[t] = fixed[s];
                }
                break;
            case 8: if (random(3) == 0) { seqs.clear(s); text[s].clear(); fixed[s] = 0; } break;
            case 9:
                if (!text[s].empty() && random(2)) {
                    seqs.restore(t, 0, text[s].size() - 1);
                    const state saved = text[s];
                    rows[seqs.row(t)] = saved;
                    text[t] = saved;
                    fixed[t] = saved.size();
                }
                break;
        }
        compare("after a step");
    }
};

static std::string refusal(const spikingbrain_sequences & seqs, const std::vector<spikingbrain_groups> & ubatches) {
    return seqs.check(ubatches);
}

int main() {
    for (uint32_t n_back : { 1, 2, 3, 5, 8, 32 }) {
        for (uint32_t seed = 0; seed < 20; ++seed) {
            machine m(1 + seed % 4, n_back, seed);
            for (int i = 0; i < 150; ++i) {
                m.step();
            }
        }
    }

    {   // what is refused, and why
        spikingbrain_sequences seqs(3, 4, 100);
        std::vector<spikingbrain_advance> first;
        seqs.begin({ { { 0 }, 7, 5 } }, first);
        seqs.end();
        check(refusal(seqs, { { { { 0 }, 12, 1 } }, { { { 0 }, 13, 2 }, { { 1 }, 0, 2 } } }).empty(), "positions that follow each other");
        check(refusal(seqs, { { { { 0 }, 11, 1 } } }).find("got 11, expected 12") != std::string::npos, "a position that is there");
        check(refusal(seqs, { { { { 0 }, 13, 1 } } }).find("got 13, expected 12") != std::string::npos, "a gap");
        check(refusal(seqs, { { { { 1 }, -1, 1 } } }).find("got -1, expected 0 or more") != std::string::npos, "a negative position");
        check(refusal(seqs, { { { { 0 }, 12, 1 } }, { { { 0 }, 12, 1 } } }).find("got 12, expected 13") != std::string::npos, "a position twice in a batch");
        check(refusal(seqs, { { { { 3 }, 0, 1 } } }).find("sequence id: got 3") != std::string::npos, "no such sequence");
        check(refusal(seqs, { { { { 0, 1 }, 12, 1 } } }).find("expected 0 or more") == std::string::npos && !refusal(seqs, { { { { 0, 1 }, 12, 1 } } }).empty(), "shared by sequences that differ");
        check(refusal(seqs, { { { { 1, 2 }, 0, 1 } }, { { { 1 }, 1, 1 } }, { { { 1, 2 }, 2, 1 } } }).size() > 0, "shared by sequences that parted in the batch");
        check(refusal(seqs, { { { { 1 }, 2147483647, 1 } } }).size() > 0 && refusal(seqs, { { { { 1 }, 99, 1 } } }).empty() &&
            refusal(seqs, { { { { 1 }, 99, 2 } } }).find("n_ctx 100") != std::string::npos, "more positions than there is room for");
        check(seqs.first(0) == 7 && seqs.last(0) == 11 && seqs.fixed(0) == 7, "checking changes nothing");
        check(seqs.covers(0, 7, 12) && !seqs.covers(0, 8, -1) && !seqs.covers(0, 0, 11) && seqs.covers(1, 5, 6), "what is the whole of a sequence");
    }
    return report("sequences");
}
