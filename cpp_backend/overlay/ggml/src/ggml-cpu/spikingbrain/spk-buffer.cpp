#include "spk-buffer.h"
#include "spk-layout.h"

#include "traits.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace {

constexpr size_t MOST_THREADS = 8;        // that load: more do not read memory faster
constexpr size_t SHARE_SIZE   = 256*1024; // bytes that a thread takes at once

// a matrix, or a stack of them: of each expert one
bool can_hold(const ggml_tensor * w) {
    return w->ne[3] == 1 && spk_can_interleave(w->type, w->ne[0], w->ne[1]);
}

// the scales of an I8 matrix
bool can_hold_scales(const ggml_tensor * scales) {
    return scales->type == GGML_TYPE_F32 && scales->ne[1] % SPK_ROWS == 0 && scales->ne[2] == 1 && scales->ne[3] == 1;
}

// `work` at once on as many threads as share n things. Memory that is new is cleared page by page when it is first written, a file's pages are
// read when they are: both wait less on several
template <class F> void on_threads(size_t n, F work) {
    const size_t n_threads = std::min({ n, (size_t) std::thread::hardware_concurrency(), MOST_THREADS });
    std::vector<std::thread> others;
    try {
        for (size_t i = 1; i < n_threads; ++i) {
            others.emplace_back(work);
        }
    } catch (const std::exception &) { // no more threads: those that are there do it
    }
    work();
    for (auto & other : others) {
        other.join();
    }
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    const bool scales = can_hold_scales(tensor);
    if (!(can_hold(tensor) || scales) || offset != 0 || size != ggml_nbytes(tensor)) {
        GGML_ABORT("spikingbrain: CPU_SPK: tensor %s: got %s [%lld, %lld], %zu bytes at %zu, expected whole matrices whose rows are a multiple of 16",
            tensor->name, ggml_type_name(tensor->type), (long long) tensor->ne[0], (long long) tensor->ne[1], size, offset);
    }
    const size_t tile_size = SPK_ROWS*ggml_row_size(tensor->type, tensor->ne[0]);
    const auto pack = [=](size_t at) {
        if (scales) {
            spk_pack_scales((float *) ((char *) tensor->data + at), (const float *) ((const char *) data + at), tensor->ne[0], SPK_ROWS);
        } else {
            spk_pack_tile(tensor->type, (uint8_t *) tensor->data + at, (const uint8_t *) data + at, tensor->ne[0], SPK_ROWS);
        }
    };
    const size_t share = std::max(tile_size, SHARE_SIZE/tile_size*tile_size);
    std::atomic<size_t> next = 0;
    on_threads((size + share - 1)/share, [&] {
        for (size_t begin = next.fetch_add(share); begin < size; begin = next.fetch_add(share)) {
            for (size_t at = begin; at < std::min(begin + share, size); at += tile_size) {
                pack(at);
            }
        }
    });
}

const char * get_name(ggml_backend_buffer_type_t) {
    return "CPU_SPK";
}

size_t get_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft             = buft;
        buffer->iface.set_tensor = set_tensor;
        buffer->iface.get_tensor = nullptr;
        buffer->iface.cpy_tensor = nullptr;
        ggml_spk_advise_huge_pages(ggml_backend_buffer_get_base(buffer), size);
    }
    return buffer;
}

class spk_buffer : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        if (op->op != GGML_OP_SPK_MUL_MAT && op->op != GGML_OP_SPK_MUL_MAT_ID) {
            return false;
        }
        bool any = false;
        for (int i = 0; i < GGML_MAX_SRC; ++i) {
            const ggml_tensor * src = op->src[i];
            if (!src || !src->buffer) {
                continue;
            }
            const bool here = src->buffer->buft == spk_buffer_type();
            const bool held = i == 0 ? can_hold(src) : i == 2 && op->op == GGML_OP_SPK_MUL_MAT && can_hold_scales(src);
            if (here ? !held : !ggml_backend_buft_is_host(src->buffer->buft)) {
                return false;
            }
            any |= here;
        }
        return any;
    }

    // the operator itself looks where its weights lie
    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor *) override {
        return nullptr;
    }
};

} // namespace

ggml_backend_buffer_type_t spk_buffer_type() {
    static ggml_backend_buffer_type type = {
        { get_name, alloc_buffer, get_alignment, nullptr, nullptr, nullptr },
        ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        static_cast<ggml::cpu::extra_buffer_type *>(new spk_buffer()),
    };
    return &type;
}

ggml_backend_buffer_type_t ggml_spikingbrain_buffer_type() {
    return spk_buffer_type();
}
