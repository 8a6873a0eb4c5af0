// Patterns of JSON schemas (ECMA-262's regular expressions) and formats, as GBNF of a JSON string.
#pragma once

#include "schema-rules.h"

namespace kept {

// the body of a rule for a whole JSON string, quotes included, that the pattern matches somewhere, of min to max code points
// (max < 0: any number). Throws unheld: look-around, references back, what has no meaning in ECMA-262; nothing.
std::string pattern_string(rules & out, const std::string & pattern, int min, int max);

// the pattern of a format that is enforced, nullptr of one that is an annotation
const char * format_pattern(const std::string & format);

} // namespace kept
