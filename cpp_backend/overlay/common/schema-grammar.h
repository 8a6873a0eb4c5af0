// JSON schemas to grammars that keep them: whatever the grammar allows is JSON that satisfies the schema. A keyword that
// constrains and that no grammar of ours holds is refused by its name and place. It stands before llama.cpp's converter, which
// drops such keywords silently, and hands it only what that holds.
#pragma once

#include "json.h"

#include <stdexcept>
#include <string>
#include <vector>

struct common_chat_params;
struct common_chat_templates;
struct common_chat_templates_inputs;

// a schema that is malformed, that nothing satisfies, or that asks for what cannot be held
struct schema_refusal : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// GBNF whose root is the schema. lenient: keywords that cannot be held are left out, and said in `warnings` (may be null).
// Throws schema_refusal.
std::string schema_grammar(const common_json & schema, bool lenient = false, std::vector<std::string> * warnings = nullptr);

// upstream's function of that name with the grammar of a request whose tools' parameters and json_schema are kept as above; the prompt
// shows them as they were given. Throws schema_refusal, also where the template's way of writing calls cannot hold them.
common_chat_params schema_templates_apply(const common_chat_templates * templates, const common_chat_templates_inputs & inputs,
    bool lenient = false, std::vector<std::string> * warnings = nullptr);
