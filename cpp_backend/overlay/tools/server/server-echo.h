#pragma once

// "echo" of /v1/completions and /completion: the answer begins with the prompt, and where log probabilities are asked for, they are the
// prompt's tokens', too, in OpenAI's shape (tokens, token_logprobs, top_logprobs, text_offset), as programs for evaluation read them.
//
// Such a prompt is read from its beginning, whatever is cached, with a row of logits for each token. A context has room for one row per
// slot; when the first such prompt comes, it gets room for ROWS_BYTES of them, and batches are divided to fit. Rows are reduced at once.

#include "server-token-rows.h"

#include "llama-spikingbrain.h"
#include "log-sum-exp.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

struct server_echo {
    static constexpr size_t ROWS_BYTES = 64 << 20;

    static bool asked(const task_params & params, task_response_type type) {
        return params.chat_parser_params.echo && (type == TASK_RESPONSE_TYPE_NONE || type == TASK_RESPONSE_TYPE_OAI_CMPL);
    }

    // data: a completion's request, params: what was read of it
    static void check(const json & data, task_params & params) {
        if (data.contains("chat_format") || !params.chat_parser_params.echo) {
            return; // of chats it is upstream's, for messages that are continued
        }
        for (const char * name : { "input_prefix", "input_suffix" }) {
            if (server_has(data, name)) { server_refuse("echo", data.at("echo"), std::string("false with ") + name); }
        }
        if (params.stream)     { server_refuse("echo", data.at("echo"), "false with stream"); }
        if (params.n_cmpl > 1) { server_refuse("n", json(params.n_cmpl), "1 with echo"); }
        if (server_has(data, "logprobs") || params.sampling.n_probs > 0) {
            params.sampling.n_probs = std::max(params.sampling.n_probs, 1);
            params.cache_prompt     = false;
            if (params.post_sampling_probs) { server_refuse("post_sampling_probs", json(true), "false with echo: a prompt is not sampled"); }
        }
    }

    // tokens of the sub-batch at off, at most n: so many that its rows have room. Marks the tokens that get one
    template <typename Slots, typename Batch>
    static int32_t n_tokens(int32_t n, const Slots & slots, Batch & batch, int32_t off, llama_context * ctx) {
        bool any = false, whole = false; // whole: a draft must not be divided
        for (int32_t i = off; i < batch.size(); ++i) {
            const auto * slot = scored(slots, batch.tokens[i]);
            batch.tokens[i].output |= slot != nullptr;
            any |= slot != nullptr;
        }
        if (!any) {
            return n;
        }
        for (const auto & slot : slots) {
            whole |= slot.can_speculate();
        }
        const int32_t room = n_rows(ctx, whole);
        llama_spikingbrain_allow_outputs(ctx, room);
        int32_t i = off;
        for (int32_t n_out = 0; i < batch.size() && i < off + n; ++i) {
            n_out += batch.tokens[i].output;
            if (n_out > room) {
                break;
            }
        }
        return i - off;
    }

    // the rows of the n tokens at off of a batch that was decoded
    template <typename Slots, typename Batch>
    static void read(Slots & slots, const Batch & batch, int32_t off, int32_t n) {
        for (int32_t i = off; i < off + n && i < batch.size(); ++i) {
            const auto & token = batch.tokens[i];
            auto * slot = scored(slots, token);
            if (slot == nullptr) {
                continue;
            }
            auto & rows = slot->generated_token_probs;
            if (rows.empty()) {
                rows.push_back(row(slot->ctx_tgt, token.token)); // nothing stands before it
            }
            if (token.pos + 1 < slot->task->n_tokens()) {
                rows.push_back(row(slot->ctx_tgt, slot->task->tokens[token.pos + 1]));
                score(rows.back(), slot->ctx_tgt, i - off, slot->task->params.sampling.n_probs);
            }
        }
    }

    // the answer as upstream writes it, with the prompt before it
    template <typename Result>
    static json answer(Result & res) {
        auto rows = std::move(res.probs_output);
        const bool scored = !rows.empty() && res.generation_params.sampling.n_probs > 0;
        const size_t n_prompt = scored ? std::min<size_t>(rows.size(), res.n_prompt_tokens) : 0;
        res.probs_output.assign(rows.begin() + n_prompt, rows.end());
        const std::string text = (scored ? joined(rows, n_prompt) : res.prompt) + res.content;
        if (res.res_type == TASK_RESPONSE_TYPE_OAI_CMPL) {
            json out = res.to_json_oaicompat();
            json & choice = out["choices"].at(0);
            choice["text"] = text;
            if (scored) {
                choice["logprobs"] = logprobs(rows, n_prompt);
            }
            return out;
        }
        json out = res.to_json_non_oaicompat();
        if (out.contains("content")) {
            out["content"] = text;
        }
        if (scored && (res.response_fields.empty() || out.contains("completion_probabilities"))) {
            rows.erase(rows.begin()); // the first token has none
            out["completion_probabilities"] = completion_token_output::probs_vector_to_json(rows, false);
        }
        return out;
    }

private:
    // the slot whose prompt the token is scored for, nullptr: none
    template <typename Slots, typename Token>
    static auto scored(Slots & slots, const Token & token) -> decltype(&slots.front()) {
        for (auto & slot : slots) {
            if (slot.id == token.id_slot && slot.task && token.is_prompt && token.token != LLAMA_TOKEN_NULL) {
                const auto & params = slot.task->params;
                const bool wanted = slot.task->type == SERVER_TASK_TYPE_COMPLETION && asked(params, params.res_type) && params.sampling.n_probs > 0;
                return wanted ? &slot : nullptr;
            }
        }
        return nullptr;
    }

    static int32_t n_rows(const llama_context * ctx, bool whole) {
        const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
        const int32_t n_batch = llama_n_batch(ctx);
        return whole ? n_batch : std::min<int32_t>(n_batch, std::max<int32_t>(llama_n_seq_max(ctx), ROWS_BYTES/(sizeof(float)*n_vocab)));
    }

    static completion_token_output row(const llama_context * ctx, llama_token id) {
        completion_token_output out;
        out.tok        = id;
        out.prob       = 1.0f;
        out.token_text = common_token_to_piece(ctx, id, true);
        out.sent       = true;
        return out;
    }

    // out: its log probability in row i of the batch, and the n likeliest tokens there
    static void score(completion_token_output & out, llama_context * ctx, int32_t i, int32_t n) {
        const float * logits = llama_get_logits_ith(ctx, i);
        if (logits == nullptr) {
            throw std::runtime_error("echo: logits: got none for a token of the prompt, expected a row");
        }
        const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
        const double log_z = log_sum_exp(logits, n_vocab).value;
        std::vector<llama_token> ids(n_vocab);
        for (int32_t k = 0; k < n_vocab; ++k) {
            ids[k] = k;
        }
        n = std::min(n, n_vocab);
        std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](llama_token a, llama_token b) { return logits[a] > logits[b]; });
        out.logprob = logits[out.tok] - log_z;
        out.prob    = std::exp(out.logprob);
        for (int32_t k = 0; k < n; ++k) {
            out.probs.push_back({ ids[k], common_token_to_piece(ctx, ids[k], true), (float) std::exp(logits[ids[k]] - log_z) });
        }
    }

    static std::string joined(const std::vector<completion_token_output> & rows, size_t n) {
        std::string out;
        for (size_t i = 0; i < n; ++i) {
            out += rows[i].token_text;
        }
        return out;
    }

    static std::string whole_characters(std::string text) {
        text.resize(validate_utf8(text));
        return text;
    }

    static json logprobs(const std::vector<completion_token_output> & rows, size_t n_prompt) {
        json tokens = json::array(), own = json::array(), top = json::array(), offsets = json::array();
        size_t offset = 0; // in characters
        for (size_t i = 0; i < rows.size(); ++i) {
            const auto & row = rows[i];
            tokens.push_back(whole_characters(row.token_text));
            offsets.push_back(offset);
            offset += std::count_if(row.token_text.begin(), row.token_text.end(), [](char c) { return (c & 0xC0) != 0x80; });
            if (i == 0 && n_prompt > 0) {
                own.push_back(nullptr);
                top.push_back(nullptr);
                continue;
            }
            const double logprob = i < n_prompt ? row.logprob : completion_token_output::logarithm(row.prob);
            json likeliest = json::object(); // of tokens that look the same, the first
            for (const auto & p : row.probs) {
                const std::string text = whole_characters(p.txt);
                if (!likeliest.contains(text)) {
                    likeliest[text] = p.tok == row.tok ? logprob : completion_token_output::logarithm(p.prob);
                }
            }
            own.push_back(logprob);
            top.push_back(likeliest);
        }
        const std::vector<completion_token_output> made(rows.begin() + n_prompt, rows.end());
        return json{ { "tokens", tokens }, { "token_logprobs", own }, { "top_logprobs", top }, { "text_offset", offsets },
            { "content", completion_token_output::probs_vector_to_json(made, false) } };
    }
};
