#include "server-spikes.h"
#include "server-common.h"

#include "llama-spikingbrain.h"
#include "runtime.h" // sb::spike_collector

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>

using sb::spike_collector;

namespace {

struct answer {
    int32_t                          id_task = -1;
    std::string                      id;
    std::unique_ptr<spike_collector> counts;
};

// Handlers ask while a decode counts: all of it but wanted_until is used under the lock.
struct state {
    std::mutex                     lock;
    std::atomic<int64_t>           wanted_until{ 0 };
    std::string                    why_not = "spikes: got a request before a model was loaded, expected one after";
    float                          k = 0.0f;
    std::map<int32_t, answer>      answers; // by slot
    int32_t                        last = -1; // slot of the answer that began last
    std::vector<spike_collector *> owners;  // of the rows that are computed now; one: of all of them
    std::atomic<bool>              attached{ false };
};

state & all() {
    static state s;
    return s;
}

int64_t now() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// row i of what t holds a row per token of
ggml_tensor row_of(const ggml_tensor * t, int64_t i) {
    ggml_tensor out = *t;
    out.ne[1] = 1;
    out.data  = static_cast<char *>(t->data) + i*t->nb[1];
    return out;
}

bool on_node(ggml_tensor * t, bool ask, void *) {
    auto & s = all();
    std::lock_guard<std::mutex> guard(s.lock);
    if (s.owners.size() == 1) {
        return spike_collector::on_node(t, ask, s.owners[0]);
    }
    bool go_on = !ask; // asked: whether anybody wants it; told: whether the graph goes on
    for (size_t i = 0; i < s.owners.size(); ++i) {
        if (ask) {
            go_on |= spike_collector::on_node(t, true, s.owners[i]);
        } else if (t->ne[1] == (int64_t) s.owners.size()) {
            ggml_tensor row = row_of(t, i);
            spike_collector::on_node(&row, false, s.owners[i]);
        }
    }
    return go_on;
}

void detach(state & s, llama_context * ctx) {
    if (s.attached) {
        llama_spikingbrain_set_eval_callback(ctx, nullptr, nullptr);
        s.attached = false;
    }
}

// --- the answer ---------------------------------------------------------------------------------------------------------

// "spike_attn_out-3": { 3, "attn_out" }
std::pair<int, std::string> layer_and_input(const std::string & node) {
    const auto dash = node.rfind('-');
    const auto name = node.rfind("spike_", 0) == 0 ? node.substr(6, dash - 6) : node.substr(0, dash);
    return { dash == std::string::npos ? 0 : std::atoi(node.c_str() + dash + 1), name };
}

// "blk.3.attn_q.weight": "attn_q"
std::string projection(const std::string & weight) {
    const auto first = weight.find('.', 4);
    return first == std::string::npos ? weight : weight.substr(first + 1, weight.rfind('.') - first - 1);
}

// sums over counts, as spikingbrain_cpp.spikes.CountHistogram has them
struct figures {
    std::vector<int64_t> bins = std::vector<int64_t>(spike_collector::N_BINS);
    int64_t n = 0, n_over = 0, spikes = 0, largest = 0;

    void add(const spike_collector::input & in, int64_t times) {
        for (size_t s = 0; s < bins.size(); ++s) {
            bins[s] += times*in.bins[s];
            n       += times*in.bins[s];
            for (size_t bits = s; bits; bits &= bits - 1) {
                spikes += times*in.bins[s];
            }
        }
        n       += times*in.n_over;
        n_over  += times*in.n_over;
        spikes  += times*in.over_spikes;
        largest  = std::max(largest, in.largest);
    }

    json share(int64_t part) const { return n > 0 ? json((double) part/n) : json(nullptr); }

    int64_t first(size_t n_bins) const {
        int64_t out = 0;
        for (size_t s = 0; s < n_bins; ++s) { out += bins[s]; }
        return out;
    }

    void tell(json & out) const {
        out["n"]            = n;
        out["largest"]      = largest;
        out["silent_share"] = share(bins[0]);
        out["mean_spikes"]  = share(spikes);
        out["share_to_7"]   = share(first(8));
    }
};

json one_input(const std::string & node, const spike_collector::input & in, figures & model) {
    const auto [layer, name] = layer_and_input(node);
    json projections = json::array();
    for (const auto & weight : in.weights) { projections.push_back(projection(weight)); }
    figures own;
    own.add(in, 1);
    model.add(in, in.weights.size());
    json out{ { "layer", layer }, { "input", name }, { "channels", in.n }, { "n_tokens", in.n_tokens }, { "n_refused", in.n_refused }, { "projections", projections } };
    own.tell(out);
    return out;
}

json map_of(const std::string & node, const spike_collector::input & in) {
    const auto [layer, name] = layer_and_input(node);
    const int64_t neurons = std::min(in.n, server_spikes::NEURONS), tokens = std::min(in.n_kept, server_spikes::TOKENS);
    json rows = json::array();
    for (int64_t i = in.n_kept - tokens; i < in.n_kept; ++i) { // the oldest first
        const auto * from = in.kept.data() + i%server_spikes::TOKENS*neurons;
        json row = json::array();
        for (int64_t k = 0; k < neurons; ++k) { row.push_back(from[k]); }
        rows.push_back(row);
    }
    return json{ { "layer", layer }, { "input", name }, { "tokens", tokens }, { "neurons", neurons }, { "counts", rows } };
}

using node = std::map<std::string, spike_collector::input>::const_iterator;

// in the order of a model: layers, and the inputs of each
std::vector<node> nodes_of(const spike_collector & counts) {
    static const std::vector<std::string> order = { "attn", "attn_out", "ffn", "ffn_down" };
    const auto rank = [](const node & it) {
        const auto [layer, name] = layer_and_input(it->first);
        return std::make_tuple(layer, std::find(order.begin(), order.end(), name) - order.begin(), name);
    };
    std::vector<node> out;
    for (auto it = counts.inputs().begin(); it != counts.inputs().end(); ++it) {
        if (it->second.n_tokens > 0) { out.push_back(it); }
    }
    std::sort(out.begin(), out.end(), [&](const node & a, const node & b) { return rank(a) < rank(b); });
    return out;
}

// the input whose map was asked for, else the first one
node chosen(const std::vector<node> & nodes, const server_http_req & req) {
    const auto layer = req.get_param("layer"), input = req.get_param("input");
    for (const auto & it : nodes) {
        const auto [il, name] = layer_and_input(it->first);
        if ((layer.empty() || layer == std::to_string(il)) && (input.empty() || input == name)) {
            return it;
        }
    }
    throw std::invalid_argument("spikes: map: got layer " + json(layer).dump_safe() + ", input " + json(input).dump_safe() + ", expected one of the inputs that the answer lists");
}

void tell(json & out, const spike_collector & counts, const server_http_req & req) {
    figures model;
    const auto nodes = nodes_of(counts);
    json inputs = json::array();
    int64_t n_tokens = 0;
    for (const auto & it : nodes) {
        inputs.push_back(one_input(it->first, it->second, model));
        n_tokens = std::max(n_tokens, it->second.n_tokens);
    }
    out["n_tokens"] = n_tokens;
    if (nodes.empty()) {
        return;
    }
    model.tell(out);
    json bins = json::array();
    for (size_t s = 0; s < server_spikes::BINS && (int64_t) s <= model.largest; ++s) { bins.push_back(model.bins[s]); }
    out["bins"]   = bins;
    out["inputs"] = inputs;
    const auto it = chosen(nodes, req);
    out["map"] = map_of(it->first, it->second);
}

// the slot of the answer that was asked for; -1: none yet
int32_t slot_of(const state & s, const server_http_req & req) {
    const auto id = req.get_param("id");
    if (id.empty()) {
        return s.last;
    }
    for (const auto & [id_slot, a] : s.answers) {
        if (a.id == id) {
            return id_slot;
        }
    }
    throw std::invalid_argument("spikes: id: got " + json(id).dump_safe() + ", expected that of a slot's last answer, of which a token was counted");
}

void check_names(const server_http_req & req) {
    for (const auto & [name, value] : req.params) {
        if (name != "id" && name != "layer" && name != "input" && name != "model") {
            throw std::invalid_argument("spikes: got " + json(name).dump_safe() + ", expected id, layer, input or none");
        }
    }
}

} // namespace

bool server_spikes::wanted() {
    return all().wanted_until.load(std::memory_order_relaxed) > now();
}

void server_spikes::loaded(const llama_context * ctx) {
    auto & s = all();
    std::lock_guard<std::mutex> guard(s.lock);
    s.answers.clear();
    s.owners.clear();
    s.attached = false;
    s.last     = -1;
    s.k        = ctx ? llama_spikingbrain_spike_k(llama_get_model(ctx)) : 0.0f;
    s.why_not  = s.k > 0.0f ? "" : "spikes: got a model that does not spike, expected one that does; do convert it with --spike";
}

void server_spikes::begin(const std::vector<row> & rows, int32_t n, llama_context * ctx) {
    auto & s = all();
    if (rows.empty() && !s.attached) {
        return;
    }
    std::lock_guard<std::mutex> guard(s.lock);
    std::set<int32_t> slots;
    for (const auto & r : rows) { slots.insert(r.id_slot); }
    const bool each = slots.size() == rows.size() && n <= (int32_t) llama_n_ubatch(ctx);
    s.owners.clear();
    if (!s.why_not.empty() || (int32_t) rows.size() != n || (slots.size() != 1 && !each)) {
        detach(s, ctx);
        return;
    }
    for (const auto & r : rows) {
        auto & a = s.answers[r.id_slot];
        if (a.id_task != r.id_task) {
            a = { r.id_task, r.id, std::make_unique<spike_collector>(TOKENS, NEURONS, true) };
            s.last = r.id_slot;
        }
        s.owners.push_back(a.counts.get());
    }
    if (slots.size() == 1) {
        s.owners.resize(1);
    }
    llama_spikingbrain_set_eval_callback(ctx, on_node, nullptr);
    s.attached = true;
}

server_http_res_ptr server_spikes::get(const server_http_req & req) {
    auto & s   = all();
    auto   res = std::make_unique<server_http_res>();
    std::lock_guard<std::mutex> guard(s.lock);
    if (!s.why_not.empty()) {
        res->status = 501;
        res->data   = safe_json_to_str({ { "error", format_error_response(s.why_not, ERROR_TYPE_NOT_SUPPORTED) } });
        return res;
    }
    check_names(req);
    s.wanted_until = now() + KEPT_ON;
    json out{ { "k", s.k }, { "id", nullptr }, { "id_slot", nullptr }, { "n_tokens", 0 } };
    if (const int32_t id_slot = slot_of(s, req); id_slot >= 0) {
        auto & a = s.answers.at(id_slot);
        a.counts->check();
        out["id"]      = a.id;
        out["id_slot"] = id_slot;
        tell(out, *a.counts, req);
    }
    res->data = safe_json_to_str(out);
    return res;
}
