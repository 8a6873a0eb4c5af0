#pragma once

// What of an answer may be sent, decided once for whole and streamed answers, and the row of log probabilities of each
// token beside it. Called at the end of llama.cpp's process_token().
//
// Text is held back while it may begin a stop string and while a character is incomplete. When the answer ends, what was
// held is sent, without a character that the limit cut. A row carries the text of its own token, is sent with the first
// text that the token is part of, and never if the token belongs to a stop string only.

#include "server-request.h"
#include "server-task.h"

#include <string>
#include <vector>

// how many of the last rows belong to text that was not sent: to a stop string
inline size_t server_rows_unsent(const std::vector<completion_token_output> & rows) {
    size_t n = 0;
    while (n < rows.size() && !rows[rows.size() - 1 - n].sent) {
        ++n;
    }
    return n;
}

// a streamed token stands for the rows that are sent with it
inline std::vector<completion_token_output> server_rows(const std::vector<completion_token_output> & tokens) {
    std::vector<completion_token_output> out;
    for (const auto & token : tokens) {
        if (token.rows.empty()) {
            out.push_back(token);
        } else {
            out.insert(out.end(), token.rows.begin(), token.rows.end());
        }
    }
    return out;
}

// marks the rows that go with the text from byte `start` of the answer to byte n_sent_text; all of them if `all`
template <typename Slot>
void server_rows_send(Slot & slot, completion_token_output & piece, size_t start, bool all) {
    auto & rows = slot.generated_token_probs;
    for (size_t i = rows.size() - server_rows_unsent(rows); i < rows.size(); ++i) {
        const size_t size = rows[i].token_text.size();
        if (!all && (size == 0 ? start > slot.n_sent_text : start >= slot.n_sent_text)) {
            return;
        }
        start += size;
        rows[i].sent = true;
        if (slot.task->params.sampling.n_probs > 0) {
            piece.rows.push_back(rows[i]);
        }
    }
}

// result: the token just taken, text_to_send as llama.cpp decided. Returns what is to be sent of it.
template <typename Slot>
completion_token_output server_piece(Slot & slot, const completion_token_output & result) {
    const bool over = !slot.has_next_token;
    const bool cut  = validate_utf8(slot.generated_text) < slot.generated_text.size();

    slot.add_token(result);
    completion_token_output piece = result;
    piece.text_to_send = cut ? "" : result.text_to_send;
    const size_t start = slot.n_sent_text - piece.text_to_send.size();

    if (over) {
        slot.generated_text.resize(validate_utf8(slot.generated_text));
        if (slot.n_sent_text < slot.generated_text.size()) {
            piece.text_to_send += slot.generated_text.substr(slot.n_sent_text);
            slot.n_sent_text = slot.generated_text.size();
        }
    }
    if (over || (!cut && slot.n_sent_text >= slot.generated_text.size())) {
        server_rows_send(slot, piece, start, over && slot.stop != STOP_TYPE_WORD);
    }
    if (piece.rows.empty()) {
        piece.probs.clear(); // no row now
    }
    return piece;
}
