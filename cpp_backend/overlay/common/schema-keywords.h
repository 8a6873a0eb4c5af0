// Every keyword of JSON schema (2020-12, draft 7, draft 4, OpenAPI 3.0) and what is done with it.
#pragma once

#include <map>
#include <string>

namespace kept {

enum class keyword {
    NOTE,    // says something about the values, allows the same ones
    HELD,    // the grammar holds it, or it is refused where it stands with values it cannot hold
    REFUSED, // constrains, and no grammar of ours holds it
};

inline const std::map<std::string, keyword> & keywords() {
    static const std::map<std::string, keyword> all = [] {
        std::map<std::string, keyword> m;
        for (const char * k : { "$schema", "$id", "id", "$anchor", "$comment", "$vocabulary", "$dynamicAnchor", "$recursiveAnchor", "$defs",
                 "definitions", "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
                 "contentEncoding", "contentMediaType", "contentSchema", "discriminator", "externalDocs", "xml", "minContains", "maxContains" }) {
            m[k] = keyword::NOTE; // minContains, maxContains: nothing without contains
        }
        for (const char * k : { "$ref", "allOf", "anyOf", "oneOf", "type", "nullable", "enum", "const", "multipleOf", "minimum", "maximum",
                 "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "pattern", "format", "items", "prefixItems",
                 "additionalItems", "unevaluatedItems", "minItems", "maxItems", "uniqueItems", "properties", "required",
                 "additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties",
                 "maxProperties", "if", "then", "else" }) {
            m[k] = keyword::HELD;
        }
        for (const char * k : { "not", "contains", "dependencies", "dependentRequired", "dependentSchemas", "$dynamicRef", "$recursiveRef",
                 "divisibleBy", "extends", "disallow" }) {
            m[k] = keyword::REFUSED;
        }
        return m;
    }();
    return all;
}

} // namespace kept
