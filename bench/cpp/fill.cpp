// A context filled without prefilling it: saved sequence states, written here with valid positions and random values,
// are restored through llama_state_seq_set_data. Decoding then does the work of a real context of that depth.

#include "session.h"

#include <algorithm>
#include <cstring>

namespace {

struct blob {
    std::vector<uint8_t> bytes;

    template <typename T>
    void put(T value) { put(&value, sizeof(value)); }

    void put(const void * data, size_t size) {
        const uint8_t * p = (const uint8_t *) data;
        bytes.insert(bytes.end(), p, p + size);
    }

    uint8_t * grow(size_t size) {
        bytes.resize(bytes.size() + size);
        return bytes.data() + bytes.size() - size;
    }
};

// n halves (-1, 1), few of them distinct: drawn once, then repeated from changing places
void random_f16(uint8_t * out, size_t n, uint64_t & rng) {
    static const std::vector<ggml_fp16_t> pool = [] {
        std::vector<ggml_fp16_t> x(1 << 16);
        uint64_t state = 7;
        for (auto & v : x) {
            v = ggml_fp32_to_fp16((int64_t) rng_next(state)*0x1p-63f);
        }
        return x;
    }();
    for (size_t done = 0; done < n; ) {
        const size_t from = rng_next(rng) % pool.size(), m = std::min(n - done, pool.size() - from);
        memcpy(out + 2*done, pool.data() + from, 2*m);
        done += m;
    }
}

// what llama_state_seq_get_data writes first; the restored sequence is the caller's choice all the same
void put_start(blob & b, const std::vector<uint8_t> & saved) {
    if (saved.size() < engine_state_header) {
        fail("fill: got a saved state of " + std::to_string(saved.size()) + " bytes, expected a header");
    }
    b.put(saved.data(), engine_state_header);
}

// n values of a cache: halves, or blocks of a half as scale and random codes
void random_cache(blob & b, ggml_type type, size_t n, uint64_t & rng) {
    const size_t size = ggml_row_size(type, n), block = ggml_type_size(type);
    uint8_t * out = b.grow(size);
    if (type == GGML_TYPE_F16) {
        random_f16(out, n, rng);
        return;
    }
    random_f16(out, size/2, rng); // any bytes are codes
    const ggml_fp16_t scale = ggml_fp32_to_fp16(0.01f);
    for (size_t i = 0; i < size; i += block) {
        memcpy(out + i, &scale, sizeof(scale));
    }
}

// KV cache (llama-kv-cache.cpp, state_write): streams, cells, positions, then rows of K, then V (transposed without flash attention)
blob kv_cells(const session & s, const std::vector<uint8_t> & saved, int first, int n, uint64_t & rng) {
    const uint32_t width = llama_model_n_embd(s.model)/llama_model_n_head(s.model)*llama_model_n_head_kv(s.model);
    const uint32_t n_layer = llama_model_n_layer(s.model);
    const bool     v_trans = !s.settings.flash_attn;
    const ggml_type type   = s.settings.kv;

    blob b;
    put_start(b, saved);
    uint32_t n_stream = 1;
    if (engine_state_streams) {
        memcpy(&n_stream, saved.data() + b.bytes.size(), sizeof(n_stream));
        b.put(n_stream);
    }
    b.put((uint32_t) n);
    for (int i = 0; i < n; ++i) {
        b.put((llama_pos) (first + i));
        b.put((uint32_t) engine_state_streams); // sequence ids of the cell, replaced when read
        if (engine_state_streams) {
            b.put((llama_seq_id) 0);
        }
    }
    b.put((uint32_t) v_trans);
    b.put(n_layer);
    for (uint32_t il = 0; il < n_layer; ++il) {
        b.put((int32_t) type);
        b.put((uint64_t) ggml_row_size(type, width));
        random_cache(b, type, (size_t) width*n, rng);
    }
    for (uint32_t il = 0; il < n_layer; ++il) {
        b.put((int32_t) type);
        if (v_trans) {
            b.put((uint32_t) ggml_type_size(type));
            b.put(width);
        } else {
            b.put((uint64_t) ggml_row_size(type, width));
        }
        random_cache(b, type, (size_t) width*n, rng);
    }
    for (uint32_t stream = 1; stream < n_stream; ++stream) {
        b.put((uint32_t) 0);
    }
    std::memset(b.grow(engine_state_tail), 0, engine_state_tail);
    return b;
}

using layer_parts = std::pair<size_t, size_t>; // heads with a recurrent state, rows that attention sees

// spikingbrain-memory.cpp, state_write: header, {sequence, first, last position}, then per layer S and the seen rows of K and V head by head
blob fixed_state(const session & s, const std::vector<uint8_t> & saved, const std::vector<layer_parts> & layers, int n, uint64_t & rng) {
    enum { HEADER = 8, D = 3, HEADS = 4, TYPE_K = 6 };
    uint32_t header[HEADER];

    blob b;
    put_start(b, saved);
    if (saved.size() < b.bytes.size() + sizeof(header)) {
        fail("fill: got a saved state of " + std::to_string(saved.size()) + " bytes, expected a header");
    }
    memcpy(header, saved.data() + b.bytes.size(), sizeof(header));
    if (header[2] != layers.size() || (int) layers.size() != llama_model_n_layer(s.model)) {
        fail("fill: layers: got " + std::to_string(layers.size()) + ", expected recurrent states and rows of " + std::to_string(header[2]));
    }
    b.put(header, sizeof(header));
    b.put((uint32_t) 1);
    for (int32_t v : { 0, 0, n - 1 }) {
        b.put(v);
    }
    const size_t d = header[D];
    for (const auto & [n_states, n_rows] : layers) {
        const size_t rows = n_rows*header[HEADS];
        float * state = (float *) b.grow(d*d*n_states*sizeof(float));
        for (size_t i = 0; i < d*d*n_states; ++i) {
            const float v = (int64_t) rng_next(rng)*0x1p-63f;
            memcpy(state + i, &v, sizeof(v));
        }
        if (header[TYPE_K] == GGML_TYPE_I8) {
            const size_t row = (d + 3)/4*4 + 4; // GGML_SPK_KV_ROW
            uint8_t * data = b.grow(2*rows*row);
            for (size_t r = 0; r < 2*rows; ++r, data += row) {
                for (size_t i = 0; i < d; ++i) {
                    data[i] = (int8_t) (rng_next(rng) >> 57);
                }
                const float scale = 0.01f;
                memcpy(data + row - 4, &scale, sizeof(scale));
            }
        } else if (header[TYPE_K] == GGML_TYPE_F16) {
            random_f16(b.grow(2*rows*2*d), 2*rows*d, rng);
        } else {
            fail("fill: window type: got " + std::to_string(header[TYPE_K]) + ", expected f16 or i8");
        }
    }
    return b;
}

std::vector<uint8_t> saved_state(llama_context * ctx, llama_seq_id seq) {
    std::vector<uint8_t> out(llama_state_seq_get_size(ctx, seq));
    out.resize(llama_state_seq_get_data(ctx, out.data(), out.size(), seq));
    return out;
}

void restore(llama_context * ctx, const blob & b, llama_seq_id seq) {
    if (llama_state_seq_set_data(ctx, b.bytes.data(), b.bytes.size(), seq) != b.bytes.size()) {
        fail("fill: the written state was refused; the format of saved states differs from what fill.cpp writes");
    }
}

} // namespace

// depth tokens in sequence seq, in pieces of `piece` cells where the context is unified
json session::fill(const request & r) {
    llama_memory_t mem = llama_get_memory(context());
    const int depth = r.at("depth"), seq = r.value("seq", 0), piece = r.value("piece", 8192);
    const auto layers = r.value("layers", std::vector<layer_parts>()); // of the model; of no use to another architecture
    if (depth < 1 || depth >= (int) llama_n_ctx(ctx) || seq < 0 || seq >= n_seq || piece < 1) {
        fail("fill: got depth " + std::to_string(depth) + ", sequence " + std::to_string(seq) + ", expected 1 .. n_ctx - 1 and a sequence of the context");
    }
    const double t0 = now();
    uint64_t rng = 11 + seq;
    prefill(request({ { "n", 1 }, { "seq", seq } }));
    const auto saved = saved_state(ctx, seq);
    llama_memory_seq_rm(mem, seq, -1, -1);

    if (is_spikingbrain()) {
        restore(ctx, fixed_state(*this, saved, layers, depth, rng), seq);
    } else {
        for (int first = 0; first < depth; ) {
            const int n = unified ? std::min(piece, depth - first) : depth;
            const llama_seq_id into = unified ? n_seq : seq;
            restore(ctx, kv_cells(*this, saved, first, n, rng), into);
            if (unified) {
                llama_memory_seq_cp(mem, into, seq, -1, -1);
                llama_memory_seq_rm(mem, into, -1, -1);
            }
            first += n;
        }
    }
    const llama_pos last = llama_memory_seq_pos_max(mem, seq);
    if (last != depth - 1) {
        fail("fill: got last position " + std::to_string(last) + ", expected " + std::to_string(depth - 1));
    }
    return { { "seconds", now() - t0 } };
}
