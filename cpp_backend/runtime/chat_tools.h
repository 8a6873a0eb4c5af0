// Chats by upstream's chat layer: a request to a prompt with what constrains the answer, an answer to text and tool calls.
// Errors: std::invalid_argument, whatever is wrong with the request, the template or the answer.
#pragma once

#include "runtime.h"

#include "chat.h"

namespace sb {

// what a request becomes
struct chat_prompt {
    std::string                      text;
    std::vector<std::string>         stops;
    std::string                      grammar;           // GBNF, "" none; with its triggers see grammar_options
    bool                             lazy = false;
    std::vector<llama_token>         preserved, trigger_tokens;
    std::vector<std::string>         trigger_patterns;
    std::string                      generation_prompt; // what the prompt holds of the answer already
    int                              format = 0;        // for chat_parser, as parser
    std::string                      parser;
    std::vector<std::string>         warnings;          // what leniency left out
};

// a template of a model, or one given, ready to be applied
class chat_templates {
public:
    // source: Jinja, "" for the model's own (upstream's ChatML when it has none), or with jinja = false the name of one
    // of upstream's built-in templates
    chat_templates(const llama_model * m, const std::string & source, bool jinja);

    bool        jinja() const { return jinja_; }
    // lenient: of JSON schemas, see schema-grammar.h. A grammar for a call that is required lets no text come first
    chat_prompt apply(common_chat_templates_inputs inputs, bool lenient) const;

private:
    void add_triggers(const common_chat_params & p, chat_prompt & out) const;

    const llama_vocab *       vocab_;
    bool                      jinja_;
    common_chat_templates_ptr templates_;
};

// an answer that is being written, read by upstream's parser for its template
class chat_parser {
public:
    chat_parser(int format, const std::string & parser, const std::string & generation_prompt);

    // what the text adds to the message; last: nothing follows
    std::vector<common_chat_msg_diff> push(const std::string & text, bool last);
    const common_chat_msg & message() const { return message_; }

private:
    common_chat_parser_params params_;
    std::string               text_;
    common_chat_msg           message_;
};

// a JSON schema as GBNF, and what leniency left out of it
std::pair<std::string, std::vector<std::string>> schema_to_grammar(const std::string & schema_json, bool lenient);
// JSON as upstream writes it; throws where it is none
std::string normal_json(const char * where, const std::string & text);

} // namespace sb
