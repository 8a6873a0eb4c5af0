// The storage of what sequences remember, without a model: rings of several lengths, a cache that grows, states and journals with
// an initial state that is not zero. What it computes is compared with plain loops, what it moves with the positions written into it.

#include "check.h"
#include "cpu.h"

#include "spikingbrain-storage.h"

#include <cstring>

static const int64_t d = 8, n_kv = 2, n_seq = 3;
static const uint32_t n_back = 4, n_ubatch = 6, n_positions = 50;
static const uint32_t ALL = spikingbrain_layer_memory::ALL;

static spikingbrain_storage_params params(bool no_alloc = false) {
    ggml_backend_buffer_type_t buft = ggml_backend_cpu_buffer_type();
    return { { { true, 16, buft }, { false, 5, buft }, { false, ALL, buft }, { true, 0, buft } }, d, n_kv, GGML_TYPE_F32, GGML_TYPE_F16, n_ubatch, n_positions, 2, no_alloc };
}

using bytes = std::vector<uint8_t>;

static bytes read(const ggml_tensor * t, size_t offset, size_t size) {
    bytes x(size);
    ggml_backend_tensor_get(t, x.data(), offset, size);
    return x;
}

static bytes saved(const spikingbrain_storage & storage, llama_seq_id s) {
    bytes all;
    storage.for_each_part(s, [&](ggml_tensor * t, size_t offset, size_t size) {
        const bytes x = read(t, offset, size);
        all.insert(all.end(), x.begin(), x.end());
    });
    return all;
}

// every ring row of the sequence names its position
static void mark(const spikingbrain_storage & storage, llama_seq_id s, llama_pos last, llama_pos n) {
    for (int il : { 0, 1, 2 }) {
        for (ggml_tensor * t : { storage.get_k(il), storage.get_v(il) }) {
            for (llama_pos p = std::max(0, last - n + 1); p <= last; ++p) {
                for (int64_t h = 0; h < n_kv; ++h) {
                    bytes row(t->nb[1]);
                    const int32_t what[] = { p, (int32_t) (100*il + h) };
                    memcpy(row.data(), what, sizeof(what));
                    ggml_backend_tensor_set(t, row.data(), h*t->nb[2] + (s*storage.n_ring(il) + p % storage.n_ring(il))*t->nb[1], row.size());
                }
            }
        }
    }
}

static void test_rows() {
    spikingbrain_sequences seqs(n_seq, n_back, n_positions, true);
    spikingbrain_storage storage(seqs, params());
    check(storage.n_ring(0) == 16 + 4 + 6 && storage.n_ring(1) == 5 + 4 + 6 && storage.n_ring(2) == 50, "a ring length per layer");
    check(storage.n_window(0) == 16 && storage.n_window(1) == 5 && storage.n_window(2) == 50, "a cache that grows shows everything");
    check(!storage.get_s(1) && !storage.get_k(3) && storage.get_s(0) && storage.get_k(0), "states and rings where they are asked for, or both");

    for (llama_pos last : { 0, 3, 4, 14, 15, 25, 26, 49 }) {
        seqs.restore(1, 0, last);
        mark(storage, 1, last, last + 1);
        storage.for_each_part(1, [&](ggml_tensor * t, size_t offset, size_t size) {
            for (int il : { 0, 1, 2 }) {
                if (t != storage.get_k(il) && t != storage.get_v(il)) {
                    continue;
                }
                const llama_pos n = std::min(storage.n_window(il), last + 1);
                for (size_t i = 0; i < size; i += t->nb[1]) {
                    int32_t what[2];
                    memcpy(what, read(t, offset + i, sizeof(what)).data(), sizeof(what));
                    const size_t in_head = offset + i - (what[1] - 100*il)*t->nb[2];
                    check(what[0] > last - n && what[0] <= last && what[1]/100 == il && in_head/t->nb[1] == (size_t) (storage.n_ring(il) + what[0] % storage.n_ring(il)),
                        "row of position " + std::to_string(what[0]) + " of " + std::to_string(last) + " in layer " + std::to_string(il));
                }
            }
        });
        size_t size = 2*d*d*n_kv*sizeof(float);
        for (int il : { 0, 1, 2 }) {
            size += std::min(storage.n_window(il), last + 1)*n_kv*(storage.get_k(il)->nb[1] + storage.get_v(il)->nb[1]);
        }
        check(saved(storage, 1).size() == size, "a saved sequence is its states and the windows");

        seqs.copy(1, 2);
        storage.copy(1, 2);
        check(saved(storage, 2) == saved(storage, 1), "a copy is the same");
    }
}

static void test_states() {
    spikingbrain_sequences seqs(n_seq, n_back, 0, true);
    spikingbrain_storage storage(seqs, params());
    const int32_t n_journal = seqs.n_journal();
    random_floats rnd(1);
    const auto first = rnd.normal(d*d*n_kv);
    for (int il : { 0, 3 }) {
        ggml_backend_tensor_set(storage.get_s(il), rnd.uniform(ggml_nelements(storage.get_s(il)), 0.5f, 1.0f).data(), 0, ggml_nbytes(storage.get_s(il)));
        storage.set_initial(il, first.data());
    }
    // of slot 1: from the initial state, then in place, over the end of the journal
    spikingbrain_advance one, two;
    one.seq = two.seq = 1;
    one.steps = { { seqs.row_initial(), 4, true, n_journal - 2, 5 } };
    two.steps = { { 4, 4, true, 3, 1 }, { 4, 5, true, 4, 2 } };
    storage.run({ one });
    storage.run({ two });
    storage.run({});
    for (int il : { 0, 3 }) {
        const float * memory = (const float *) storage.get_s(il)->data;
        std::vector<double> S(first.begin(), first.end());
        const auto advance = [&](int32_t e) {
            const float * k = memory + seqs.n_rows()*d*d*n_kv + (n_journal + e % n_journal)*3*n_kv*d;
            for (int64_t h = 0; h < n_kv; ++h) {
                for (int64_t i = 0; i < d; ++i) {
                    for (int64_t j = 0; j < d; ++j) {
                        double & x = S[(h*d + i)*d + j];
                        x = x*k[(2*n_kv + h)*d + i] + (double) k[h*d + i]*k[(n_kv + h)*d + j];
                    }
                }
            }
        };
        for (int32_t e = n_journal - 2; e < n_journal + 4; ++e) {
            advance(e);
        }
        check(max_error(std::vector<float>(memory + 4*d*d*n_kv, memory + 5*d*d*n_kv), S) < 1e-5, "a state replayed from the initial one, in place");
        advance(4);
        advance(5);
        check(max_error(std::vector<float>(memory + 5*d*d*n_kv, memory + 6*d*d*n_kv), S) < 1e-5, "and into another row");
    }

    storage.clear();
    for (int il : { 0, 3 }) {
        const bytes all = read(storage.get_s(il), 0, ggml_nbytes(storage.get_s(il)));
        const size_t begin = seqs.row_initial()*d*d*n_kv*sizeof(float), size = first.size()*sizeof(float);
        check(memcmp(all.data() + begin, first.data(), size) == 0, "clear keeps the initial state");
        size_t n_other = 0;
        for (size_t i = 0; i < all.size(); ++i) {
            n_other += all[i] != 0 && (i < begin || i >= begin + size);
        }
        check(n_other == 0, "and nothing else");
    }
}

// Rows of sinks in windows and in a cache that grows, in every type; states per query head in one layer and per key/value head in another
static void test_sinks(ggml_type type) {
    const int64_t n_head = 6, n_sinks = 5;
    auto p = params();
    p.type_k = p.type_v = type;
    p.n_sinks = n_sinks;
    p.layers[0].n_head = n_head;
    spikingbrain_sequences seqs(n_seq, n_back, n_positions, true);
    spikingbrain_storage storage(seqs, p);
    check(storage.n_head(0) == n_head && storage.n_head(3) == n_kv, "states of as many heads as a layer has");
    check(storage.get_s(0)->ne[1] == ggml_spk_gla_rows(d, n_head, seqs.n_rows(), n_seq*seqs.n_journal()), "and room for them");

    random_floats rnd(3);
    const auto state = rnd.normal(d*d*n_head), k = rnd.normal(d*n_sinks*n_kv), v = rnd.normal(d*n_sinks*n_kv);
    storage.set_initial(0, state.data());
    std::vector<bytes> before;
    for (int il : { 0, 1, 2 }) {
        storage.set_sinks(il, k.data(), v.data());
        for (ggml_tensor * t : { storage.get_k(il), storage.get_v(il) }) {
            check(t->ne[1] == n_seq*storage.n_ring(il) + n_sinks, "rows of sinks behind those of all sequences");
            before.push_back(read(t, 0, ggml_nbytes(t)));
            const std::vector<float> & x = t == storage.get_k(il) ? k : v;
            for (int64_t i = 0; i < d*n_sinks*n_kv; ++i) {
                const int64_t h = i/(d*n_sinks), j = i/d % n_sinks;
                const uint8_t * row = before.back().data() + h*t->nb[2] + (t->ne[1] - n_sinks + j)*t->nb[1];
                float scale;
                memcpy(&scale, row + t->nb[1] - sizeof(float), sizeof(float));
                const float got = type == GGML_TYPE_F32 ? ((const float *) row)[i % d] : type == GGML_TYPE_F16 ? ggml_fp16_to_fp32(((const ggml_fp16_t *) row)[i % d]) : scale*((const int8_t *) row)[i % d];
                check(std::fabs(got - x[i]) < (type == GGML_TYPE_F32 ? 1e-9f : 0.02f), "a sink's value");
            }
        }
    }
    seqs.restore(0, 0, n_positions - 1);
    seqs.copy(0, 2);
    storage.copy(0, 2);
    storage.reach(0, n_positions - 1);
    mark(storage, 0, n_positions - 1, n_positions);
    mark(storage, 2, n_positions - 1, n_positions);
    storage.clear();
    size_t i = 0;
    for (int il : { 0, 1, 2 }) {
        for (ggml_tensor * t : { storage.get_k(il), storage.get_v(il) }) {
            const bytes now = read(t, 0, ggml_nbytes(t));
            bool same = true, empty = true;
            for (size_t at = 0; at < now.size(); ++at) {
                const int64_t row = at % t->nb[2]/t->nb[1];
                same  = same  && (row < t->ne[1] - n_sinks || now[at] == before[i][at]);
                empty = empty && (row >= t->ne[1] - n_sinks || row/storage.n_ring(il) == 1 || now[at] == 0); // nothing was ever in slot 1
            }
            check(same && empty, "clear() leaves the sinks, and nothing of sequences");
            ++i;
        }
    }
    check(read(storage.get_s(0), seqs.row_initial()*d*d*n_head*sizeof(float), state.size()*sizeof(float)) == bytes((const uint8_t *) state.data(), (const uint8_t *) (state.data() + state.size())), "and the initial state");
}

int main() {
    cpu_backend(); // loads the backends
    test_rows();
    test_states();
    for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_I8 }) {
        test_sinks(type);
    }

    spikingbrain_sequences seqs(n_seq, n_back);
    const spikingbrain_storage there(seqs, params()), measured(seqs, params(true));
    check(there.memory_breakdown() == measured.memory_breakdown() && there.memory_breakdown().size() == 1, "measured without allocating");
    return report("storage");
}
