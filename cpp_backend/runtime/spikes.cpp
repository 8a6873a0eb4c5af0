#include "runtime.h"

#include "ggml-backend.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <cstdlib>

namespace sb {

spike_collector::spike_collector(int64_t keep_tokens, int64_t keep_neurons, bool keep_last)
    : keep_tokens_(keep_tokens), keep_neurons_(keep_neurons), keep_last_(keep_last) {}

// ordinary activations are encoded, too: those of the output head, of INT8 weights whose input does not spike
static bool is_spikes(const ggml_tensor * t) {
    return t->op == GGML_OP_SPK_ENCODE && t->op_params[GGML_SPK_ENCODE_ENCODING] == GGML_SPK_SPIKE;
}

// the tensor an integer or a float product reads its counts from, nullptr: none
static const ggml_tensor * spikes_read_by(const ggml_tensor * t) {
    const bool in_integers = t->op == GGML_OP_SPK_MUL_MAT || t->op == GGML_OP_SPK_MUL_MAT_ID, of_floats = t->op == GGML_OP_MUL_MAT || t->op == GGML_OP_MUL_MAT_ID;
    const ggml_tensor * x   = of_floats && t->src[1]->op == GGML_OP_RESHAPE ? t->src[1]->src[0] : t->src[1];
    const ggml_tensor * act = in_integers ? t->src[1] : of_floats && x->op == GGML_OP_SPK_DECODE ? x->src[0] : nullptr;
    return act && is_spikes(act) ? act : nullptr;
}

// the projection of a layer: "blk.3.attn_q.weight", or empty for an adapter's matrix
static std::string weight_of(const ggml_tensor * t) {
    const std::string name = t->src[0]->name;
    const auto suffix = name.rfind(".weight");
    return suffix != std::string::npos && suffix + 7 == name.size() ? name : std::string();
}

// ggml_backend_sched_eval_callback: asked for every node before it runs, called again after those it wants
bool spike_collector::on_node(ggml_tensor * t, bool ask, void * self) {
    auto & me = *static_cast<spike_collector *>(self);
    try {
        if (!ask) {
            t->op == GGML_OP_SPK_TOP1 ? me.add_choices(t) : me.add(t);
        } else if (const ggml_tensor * act = spikes_read_by(t)) {
            const auto weight = weight_of(t);
            if (!weight.empty()) {
                me.inputs_[act->name].weights.insert(weight);
            }
        }
    } catch (const std::exception &) { // no memory: ggml is C, so it is said after the run
        me.failed_ = true;
    }
    return !ask || is_spikes(t) || t->op == GGML_OP_SPK_TOP1;
}

const char * spike_collector::data_of(const ggml_tensor * t) {
    if (!t->buffer || ggml_backend_buffer_is_host(t->buffer)) {
        return static_cast<const char *>(t->data);
    }
    copy_.resize(ggml_nbytes(t));
    ggml_backend_tensor_get(t, copy_.data(), 0, copy_.size());
    return copy_.data();
}

void spike_collector::add_choices(const ggml_tensor * t) {
    const int32_t * chosen = reinterpret_cast<const int32_t *>(data_of(t));
    auto & layer = experts_[t->name];
    for (auto * sums : { &layer.n, &layer.silent, &layer.channels }) {
        sums->resize(t->src[0]->ne[0]);
    }
    layer.last.assign(chosen, chosen + ggml_nelements(t));
    for (int64_t i = 0; i < ggml_nelements(t); ++i) {
        ++layer.n[chosen[i]];
        if ((int64_t) layer.kept.size() < keep_tokens_) {
            layer.kept.push_back(chosen[i]);
        }
    }
}

// the choices by which t's rows belong to one expert each, nullptr: t is no input of chosen experts alone
spike_collector::choices * spike_collector::choices_of_rows(const ggml_tensor * t) {
    const std::string name = t->name, prefix = "spike_ffn_down_exps-";
    if (name.compare(0, prefix.size(), prefix) != 0) {
        return nullptr;
    }
    const auto it = experts_.find("ffn_moe_topk-" + name.substr(prefix.size()));
    return it != experts_.end() && (int64_t) it->second.last.size() == t->ne[1] ? &it->second : nullptr;
}

void spike_collector::add(const ggml_tensor * t) {
    const int64_t n = t->src[0]->ne[0];
    const char *  rows = data_of(t);
    auto & in = inputs_[t->name];
    in.n = n;
    in.bins.resize(N_BINS);
    choices * of_rows = choices_of_rows(t);
    for (int64_t i = 0; i < t->ne[1]; ++i) {
        const char * data = rows + i*t->nb[1];
        const ggml_spk_row row = ggml_spk_row_get(data, n);
        ++in.n_tokens;
        if (!(row.v_th > 0.0f)) { // NaN: the row could not be encoded
            ++in.n_refused;
            continue;
        }
        const int64_t silent_before = in.bins[0];
        count(in, row, n);
        if (of_rows) {
            of_rows->silent[of_rows->last[i]] += in.bins[0] - silent_before;
            of_rows->channels[of_rows->last[i]] += n;
        }
        keep(in, data, n);
    }
}

void spike_collector::count(input & in, const ggml_spk_row & row, int64_t n) {
    int64_t hist[4][256] = {}; // several, since the same count often follows itself
    for (int64_t i = 0; i < n; ++i) {
        ++hist[i % 4][(uint8_t) row.s8[i]];
    }
    for (int value = -127; value <= 127; ++value) {
        int64_t sum = 0;
        for (const auto & h : hist) {
            sum += h[(uint8_t) value];
        }
        in.bins[std::abs(value)] += sum;
        in.largest = sum > 0 ? std::max<int64_t>(in.largest, std::abs(value)) : in.largest;
    }
    for (int32_t i = 0; i < row.n_outliers; ++i) { // counted as their clamped +-127 above
        const auto & o = row.outliers[i];
        const int64_t s = std::abs((int64_t) row.s8[o.index] + o.excess);
        --in.bins[std::abs(row.s8[o.index])];
        in.largest = std::max(in.largest, s);
        if (s < N_BINS) {
            ++in.bins[s];
            continue;
        }
        ++in.n_over;
        for (int64_t bits = s; bits; bits &= bits - 1) {
            ++in.over_spikes;
        }
    }
}

void spike_collector::keep(input & in, const char * row, int64_t n) {
    const int64_t width = std::min(n, keep_neurons_);
    if (keep_tokens_ == 0 || width == 0 || (in.n_kept >= keep_tokens_ && !keep_last_)) {
        return;
    }
    counts_.resize(n);
    ggml_spk_row_counts(row, n, counts_.data());
    const int64_t at = in.n_kept++ % keep_tokens_ * width;
    in.kept.resize(std::max<int64_t>(in.kept.size(), at + width));
    std::copy(counts_.begin(), counts_.begin() + width, in.kept.begin() + at);
}

void spike_collector::reset() {
    inputs_.clear();
    experts_.clear();
    failed_ = false;
}

void spike_collector::check() {
    if (failed_) {
        failed_ = false;
        throw std::runtime_error("spike statistics: got no memory for them, expected some; keep fewer counts, and reset them");
    }
}

} // namespace sb
