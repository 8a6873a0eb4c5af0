#pragma once

#include "llama.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// The bookkeeping of what sequences remember: owners, positions, content, what can be taken back. It knows no tensor and
// moves no byte: its answers say what spikingbrain-storage.h is to do. Tested without a model (tests/cpp/test-sequences.cpp).
//
// A sequence holds positions first .. last in a slot of its own. Its recurrent state lies in rows of that slot:
//   base     the state after position base.pos, at or before all that can still be taken back
//   next     the state that base becomes once all before it can no longer be taken back
//   current  the state after the last position
//   before   the state before the last micro-batch, as long as its row is not needed
// (some of them may be one row)
// and a journal, a ring of entries, holds what the recurrence read (k, v, decay) at positions base.pos + 1 .. last. So the state
// after any position from base.pos on is had by replaying entries from the nearest of base, next and before; that is how a tail is taken back.
//
// A micro-batch that is interrupted has run in some layers and not in others. So it never writes a row or an entry from which
// the state before it is made: that state is a row it leaves alone, or base and entries it leaves alone.
//
// What can be taken back: after positions are decoded the last n_back of them, in any number of removals; then what is left of them.
// An interrupted micro-batch leaves everything as it was before. A restored sequence begins with nothing to take back.

// destination row = source row advanced by n positions: entries first .. of the journal, or tokens first .. of the micro-batch
struct spikingbrain_step {
    int32_t src, dst;
    bool    journal;
    int32_t first, n;
};

// what happens to the memory of one sequence: at most two steps, in order, and entries for the tokens from journal_token on
struct spikingbrain_advance {
    llama_seq_id seq           = -1;
    llama_pos    pos_first     = 0; // the first position that the sequence holds
    int32_t      read          = 0; // the row with the state before the micro-batch
    int32_t      journal_at    = 0; // entry of the first token that gets one
    int32_t      journal_token = 0; // that token; the number of tokens: none does

    std::vector<spikingbrain_step> steps;
};

// tokens of a micro-batch side by side that belong to the same sequences: n positions from pos on
struct spikingbrain_group {
    std::vector<llama_seq_id> seqs; // ascending; the first one owns the computation, the others get copies
    llama_pos pos;
    int32_t   n;
};

using spikingbrain_groups = std::vector<spikingbrain_group>;

class spikingbrain_sequences {
public:
    static constexpr int32_t N_STATES = 4; // rows of a slot

    // n_back > 0: positions that can be taken back. n_positions: what layers whose cache grows have room for, 0: no such layer.
    // initial: the state before any token is not zero, and has a row of its own
    spikingbrain_sequences(uint32_t n_seq_max, uint32_t n_back, uint32_t n_positions = 0, bool initial = false);

    //
    // decoding: begin, then end or cancel
    //

    // Empty if these micro-batches can be decoded one after the other, else why not. Positions must follow each other from the
    // last one on, or from any at or above 0 in an empty sequence; sequences that share a token must have the same content.
    std::string check(const std::vector<spikingbrain_groups> & ubatches) const;

    // The micro-batch is about to be computed; one that was begun must be over. first: what is to be done, wholly, before.
    // Returns what the micro-batch does, per group.
    std::vector<spikingbrain_advance> begin(const spikingbrain_groups & ubatch, std::vector<spikingbrain_advance> & first);

    // It was computed. Returns the copies to be made: from, to.
    std::vector<std::pair<llama_seq_id, llama_seq_id>> end();

    // It was not, or not wholly: every sequence is what it was before. Returns what restores the states. Without one: nothing.
    std::vector<spikingbrain_advance> cancel();

    //
    // operations on sequences, all of them between micro-batches
    //

    // Removes positions p0 .. p1 - 1 (p0 < 0: from the first one on, p1 < 0: to the last one). Possible: all of them, none of
    // them, or a tail that can be taken back. False: refused, nothing changes. todo: what restores the state.
    bool remove(llama_seq_id seq, llama_pos p0, llama_pos p1, std::vector<spikingbrain_advance> & todo);

    // dst becomes what src is, with what can be taken back; the caller copies the slot
    void copy(llama_seq_id src, llama_seq_id dst);

    // whether positions p0 .. p1 - 1 are the whole of it
    bool covers(llama_seq_id seq, llama_pos p0, llama_pos p1) const;

    void clear(llama_seq_id seq);

    // whether a sequence may end at this position, of which layers that see everything have n_fit(); 0: no such layer
    bool    fits(llama_pos last) const { return n_positions == 0 || last < (llama_pos) n_positions; }
    int32_t n_fit() const { return n_positions; }

    // The sequence holds positions first .. last, whose state is read from elsewhere into row(seq).
    void restore(llama_seq_id seq, llama_pos first, llama_pos last);

    //
    // what is
    //

    size_t size() const { return seqs.size(); }
    bool   is_seq(llama_seq_id seq) const { return seq >= 0 && (size_t) seq < seqs.size(); }
    bool   empty (llama_seq_id seq) const { return seqs[seq].empty(); }

    llama_pos first(llama_seq_id seq) const { return seqs[seq].first; } // -1: empty
    llama_pos last (llama_seq_id seq) const { return seqs[seq].last; }

    // The last position that cannot be taken back, or the first one held: positions after it can be removed. -1: empty.
    llama_pos fixed(llama_seq_id seq) const;

    int32_t row(llama_seq_id seq) const { return index(seq, seqs[seq].current); } // of the current state

    int32_t n_back()    const { return n_keep; }
    int32_t n_journal() const { return 2*n_keep; }                         // entries of a slot
    int32_t n_rows()    const { return N_STATES*(int32_t) seqs.size() + has_initial; }
    int32_t row_initial() const { return has_initial ? n_rows() - 1 : -1; } // the state before any token, -1: zeros

    // Two sequences, or one at two times, have equal content if and only if these are equal.
    std::pair<uint64_t, llama_pos> content(llama_seq_id seq) const;

private:
    struct state {
        int32_t   row     = 0;     // 0 .. N_STATES - 1
        llama_pos pos     = -1;    // after this position
        bool      initial = false; // nothing is in the row yet: the state before any token
    };

    struct sequence {
        llama_pos first = -1, last = -1;
        llama_pos floor = -1; // positions after it can be taken back
        state base, next, current, before;
        bool    has_next    = false;
        bool    has_before  = false;
        int32_t journal_end = 0; // entry that the next position gets

        std::vector<std::pair<llama_pos, uint64_t>> written; // per micro-batch: its last position, a number of its own

        bool empty() const { return last < 0; }
    };

    int32_t index(llama_seq_id id, const state & s) const { return s.initial ? row_initial() : N_STATES*id + s.row; }
    int32_t entry(const sequence & seq, llama_pos pos) const; // of a position in the journal
    int32_t free_row(const sequence & seq, int32_t other = -1) const; // not that of base, next, current or other

    void start(sequence & seq, llama_pos pos) const;
    void make_room    (llama_seq_id id, sequence & seq, int32_t n, std::vector<spikingbrain_advance> & first) const;
    void advance_short(llama_seq_id id, sequence & seq, int32_t n, spikingbrain_advance & out) const;
    void advance_long (llama_seq_id id, sequence & seq, int32_t n, spikingbrain_advance & out) const;
    void take_back(llama_seq_id id, llama_pos last, std::vector<spikingbrain_advance> & todo);

    // the state after position `to` into a row of the slot, from one before it
    spikingbrain_advance replay(llama_seq_id id, const sequence & seq, const state & from, int32_t row, llama_pos to) const;

    std::string check_group(const spikingbrain_group & group, std::vector<llama_pos> & last, std::vector<std::pair<uint64_t, llama_pos>> & content, uint64_t number) const;

    const int32_t  n_keep;
    const uint32_t n_positions;
    const bool     has_initial;

    std::vector<sequence> seqs;
    uint64_t n_written = 0;

    spikingbrain_groups in_flight;
    std::vector<sequence> previous; // of the owners in flight
};
