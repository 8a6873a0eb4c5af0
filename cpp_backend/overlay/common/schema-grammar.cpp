#include "schema-grammar.h"

#include "schema-writer.h"

std::string schema_grammar(const common_json & schema, bool lenient, std::vector<std::string> * warnings) {
    if (!kept::is_schema(schema)) {
        kept::schema_reader::malformed("#", "schema", schema, "an object");
    }
    return schema_refusing([&] {
        kept::schema_writer writer(schema, "sb-", lenient, warnings);
        const std::string   root = writer.rule(schema, "#");
        return "root ::= " + root + "\n" + writer.out.text();
    });
}
