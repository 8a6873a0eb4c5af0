#include "spikingbrain-sequences.h"

#include <algorithm>
#include <limits>

static std::string text(long long x) {
    return std::to_string(x);
}

spikingbrain_sequences::spikingbrain_sequences(uint32_t n_seq_max, uint32_t n_back, uint32_t n_positions, bool initial) :
    n_keep(n_back), n_positions(n_positions), has_initial(initial), seqs(n_seq_max) {
}

//
// what can be decoded
//

std::string spikingbrain_sequences::check_group(const spikingbrain_group & group, std::vector<llama_pos> & last,
        std::vector<std::pair<uint64_t, llama_pos>> & content, uint64_t number) const {
    const llama_seq_id owner = group.seqs.front();
    for (llama_seq_id s : group.seqs) {
        if (!is_seq(s)) {
            return "sequence id: got " + text(s) + ", expected 0 .. " + text(seqs.size() - 1) + "; raise n_seq_max (--parallel)";
        }
        if (last[s] < 0 ? group.pos < 0 : group.pos != last[s] + 1) {
            return "position of a token of sequence " + text(s) + ": got " + text(group.pos) + ", expected " +
                (last[s] < 0 ? "0 or more" : text((long long) last[s] + 1)) + "; decode positions in order, each once";
        }
        if (content[s] != content[owner]) {
            return "token shared by sequences " + text(owner) + " and " + text(s) + ": got different histories, expected the same; decode them separately";
        }
    }
    if (group.n > std::numeric_limits<llama_pos>::max() - group.pos) {
        return "position: got more than " + text(std::numeric_limits<llama_pos>::max()) + ", expected at most that; begin a new sequence";
    }
    if (n_positions > 0 && (uint32_t) (group.pos + group.n) > n_positions) {
        return "position of a token: got " + text((long long) group.pos + group.n - 1) + ", expected less than n_ctx " + text(n_positions) + "; raise n_ctx (-c)";
    }
    for (llama_seq_id s : group.seqs) {
        last[s]    = group.pos + group.n - 1;
        content[s] = { number, last[s] };
    }
    return "";
}

std::string spikingbrain_sequences::check(const std::vector<spikingbrain_groups> & ubatches) const {
    std::vector<llama_pos> last;
    std::vector<std::pair<uint64_t, llama_pos>> content;
    for (size_t s = 0; s < seqs.size(); ++s) {
        last.push_back(seqs[s].last);
        content.push_back(this->content(s));
    }
    uint64_t number = n_written;
    for (const auto & ubatch : ubatches) {
        for (const auto & group : ubatch) {
            const std::string error = check_group(group, last, content, ++number);
            if (!error.empty()) {
                return error;
            }
        }
    }
    return "";
}

//
// states and entries
//

int32_t spikingbrain_sequences::entry(const sequence & seq, llama_pos pos) const {
    const int32_t from_end = seq.last - pos + 1; // 1: the last position
    return (seq.journal_end - from_end + 2*n_journal()) % n_journal();
}

int32_t spikingbrain_sequences::free_row(const sequence & seq, int32_t other) const {
    int32_t row = 0;
    while (row == seq.base.row || row == seq.current.row || row == other || (seq.has_next && row == seq.next.row)) {
        ++row;
    }
    return row;
}

spikingbrain_advance spikingbrain_sequences::replay(llama_seq_id id, const sequence & seq, const state & from, int32_t row, llama_pos to) const {
    spikingbrain_advance out;
    out.seq   = id;
    out.steps = { { index(id, from), N_STATES*id + row, true, entry(seq, from.pos + 1), to - from.pos } };
    return out;
}

void spikingbrain_sequences::start(sequence & seq, llama_pos pos) const {
    seq = sequence();
    seq.first = pos;
    seq.last  = seq.floor = pos - 1;
    seq.base  = seq.current = { 0, pos - 1, true };
}

// Entries for n more tokens beside those of what can be taken back: base moves up to next or, if that is not enough, to the floor. No
// further: a cancelled micro-batch takes nothing away.
void spikingbrain_sequences::make_room(llama_seq_id id, sequence & seq, int32_t n, std::vector<spikingbrain_advance> & first) const {
    const auto is_room = [&]() { return seq.last - seq.base.pos + n <= n_journal(); };
    if (!is_room() && seq.has_next && seq.next.pos <= seq.floor) {
        seq.base     = seq.next;
        seq.has_next = false;
    }
    if (!is_room()) {
        first.push_back(replay(id, seq, seq.base, seq.base.row, seq.floor));
        seq.has_before = seq.has_before && seq.before.row != seq.base.row;
        seq.base       = { seq.base.row, seq.floor, false };
        seq.has_next   = seq.has_next && seq.next.pos > seq.floor;
    }
    // the last state that will lie at the floor or before it when room is needed again, if micro-batches stay as long
    if (!seq.current.initial && seq.current.row != seq.base.row && seq.last - seq.base.pos <= n_keep - (n - 1)) {
        seq.next     = seq.current;
        seq.has_next = true;
    }
}

// at most n_back tokens: all get entries, the current state becomes the one before
void spikingbrain_sequences::advance_short(llama_seq_id id, sequence & seq, int32_t n, spikingbrain_advance & out) const {
    const int32_t row = free_row(seq);
    out.steps = { { index(id, seq.current), N_STATES*id + row, false, 0, n } };
    out.journal_token = 0;
    seq.before     = seq.current;
    seq.has_before = true;
    seq.current    = { row, seq.last + n, false };
}

// more than that: base moves into the micro-batch, n_back before its end. Where the current state must give its row, it can be
// made again from the old base, whose entries and the new ones have room beside each other.
void spikingbrain_sequences::advance_long(llama_seq_id id, sequence & seq, int32_t n, spikingbrain_advance & out) const {
    seq.has_next = false;
    const int32_t middle = free_row(seq);
    const int32_t row    = seq.base.row == seq.current.row ? free_row(seq, middle) : seq.current.row;
    out.steps = {
        { index(id, seq.current), N_STATES*id + middle, false, 0, n - n_keep },
        { N_STATES*id + middle, N_STATES*id + row, false, n - n_keep, n_keep },
    };
    out.journal_token = n - n_keep;
    seq.base       = { middle, seq.last + n - n_keep, false };
    seq.current    = { row, seq.last + n, false };
    seq.has_before = false;
}

//
// decoding
//

std::vector<spikingbrain_advance> spikingbrain_sequences::begin(const spikingbrain_groups & ubatch, std::vector<spikingbrain_advance> & first) {
    std::vector<spikingbrain_advance> result;
    in_flight = ubatch;
    previous.clear();
    for (const auto & group : ubatch) {
        const llama_seq_id id = group.seqs.front();
        const bool is_long = group.n > n_keep;
        sequence & seq = seqs[id];
        if (!seq.empty()) {
            make_room(id, seq, std::min(group.n, n_keep), first);
        }
        previous.push_back(seq);
        if (seq.empty()) {
            start(seq, group.pos);
        }

        spikingbrain_advance out;
        out.seq        = id;
        out.pos_first  = seq.first;
        out.read       = row(id);
        out.journal_at = seq.journal_end;
        is_long ? advance_long(id, seq, group.n, out) : advance_short(id, seq, group.n, out);

        seq.journal_end = (seq.journal_end + group.n - out.journal_token) % n_journal();
        seq.last  += group.n;
        seq.floor  = std::max(seq.floor, seq.last - n_keep);
        while (!seq.written.empty() && seq.written.front().first < seq.floor) {
            seq.written.erase(seq.written.begin());
        }
        seq.written.emplace_back(seq.last, ++n_written);
        result.push_back(std::move(out));
    }
    return result;
}

std::vector<std::pair<llama_seq_id, llama_seq_id>> spikingbrain_sequences::end() {
    std::vector<std::pair<llama_seq_id, llama_seq_id>> copies;
    for (const auto & group : in_flight) {
        for (size_t i = 1; i < group.seqs.size(); ++i) {
            copy(group.seqs[0], group.seqs[i]);
            copies.emplace_back(group.seqs[0], group.seqs[i]);
        }
    }
    in_flight.clear();
    return copies;
}

std::vector<spikingbrain_advance> spikingbrain_sequences::cancel() {
    std::vector<spikingbrain_advance> todo;
    for (size_t i = 0; i < in_flight.size(); ++i) {
        const llama_seq_id id = in_flight[i].seqs.front();
        const int32_t taken = seqs[id].current.row;
        sequence & seq = seqs[id] = previous[i];
        seq.has_before = false; // its row may have been written
        seq.has_next   = seq.has_next && in_flight[i].n <= n_keep;
        if (!seq.empty() && !seq.current.initial && taken == seq.current.row) {
            todo.push_back(replay(id, seq, seq.base, seq.current.row, seq.last));
        }
    }
    in_flight.clear();
    return todo;
}

//
// operations on sequences
//

bool spikingbrain_sequences::covers(llama_seq_id id, llama_pos p0, llama_pos p1) const {
    const sequence & seq = seqs[id];
    return seq.empty() || (p0 <= seq.first && (p1 < 0 || p1 > seq.last));
}

bool spikingbrain_sequences::remove(llama_seq_id id, llama_pos p0, llama_pos p1, std::vector<spikingbrain_advance> & todo) {
    sequence & seq = seqs[id];
    const bool to_end = p1 < 0 || p1 > seq.last;
    if (seq.empty() || p0 > seq.last || (p1 >= 0 && (p1 <= seq.first || p1 <= p0))) {
        return true; // nothing there
    }
    if (covers(id, p0, p1)) {
        clear(id);
        return true;
    }
    if (!to_end || p0 - 1 < seq.floor) {
        return false;
    }
    take_back(id, p0 - 1, todo);
    return true;
}

void spikingbrain_sequences::take_back(llama_seq_id id, llama_pos last, std::vector<spikingbrain_advance> & todo) {
    sequence & seq = seqs[id];
    seq.has_next   = seq.has_next   && seq.next.pos   <= last;
    seq.has_before = seq.has_before && seq.before.pos <= last;
    state from = seq.has_next ? seq.next : seq.base;
    if (seq.has_before && seq.before.pos > from.pos) {
        from = seq.before;
    }
    if (from.pos == last) {
        seq.current = from;
    } else {
        const bool shared = seq.current.row == seq.base.row || (seq.has_next && seq.current.row == seq.next.row) || (seq.has_before && seq.current.row == seq.before.row);
        const int32_t row = shared ? free_row(seq, seq.has_before ? seq.before.row : -1) : seq.current.row;
        todo.push_back(replay(id, seq, from, row, last));
        seq.current = { row, last, false };
    }
    seq.journal_end = (seq.journal_end - (seq.last - last) + n_journal()) % n_journal();
    seq.last        = last;
    while (seq.written.size() > 1 && seq.written[seq.written.size() - 2].first >= last) {
        seq.written.pop_back();
    }
}

void spikingbrain_sequences::copy(llama_seq_id src, llama_seq_id dst) {
    seqs[dst] = seqs[src];
}

void spikingbrain_sequences::clear(llama_seq_id id) {
    seqs[id] = sequence();
}

void spikingbrain_sequences::restore(llama_seq_id id, llama_pos first, llama_pos last) {
    sequence & seq = seqs[id];
    seq = sequence();
    seq.first   = first;
    seq.last    = seq.floor = last;
    seq.base    = seq.current = { 0, last, false };
    seq.written = { { last, ++n_written } };
}

llama_pos spikingbrain_sequences::fixed(llama_seq_id id) const {
    return std::max(seqs[id].floor, seqs[id].first);
}

std::pair<uint64_t, llama_pos> spikingbrain_sequences::content(llama_seq_id id) const {
    const sequence & seq = seqs[id];
    return seq.empty() ? std::pair<uint64_t, llama_pos> { 0, -1 } : std::pair<uint64_t, llama_pos> { seq.written.back().second, seq.last };
}
