#include "core.h"

#include "json.h"
#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "jinja/value.h"

namespace sb {

// upstream's engine on the variables alone, without the rewriting that its chat layer does for tool calls
std::string render_template(const std::string & source, const std::string & variables_json) {
    py::gil_scoped_release nogil;
    jinja::lexer lexer;
    auto tokens  = lexer.tokenize(source);
    auto program = jinja::parse_from_tokens(tokens);

    jinja::context ctx(tokens.source);
    jinja::global_from_json(ctx, common_json::parse(variables_json), false);

    jinja::runtime runtime(ctx);
    const jinja::value result = runtime.execute(program);
    return jinja::runtime::gather_string_parts(result)->as_string().str();
}

} // namespace sb
