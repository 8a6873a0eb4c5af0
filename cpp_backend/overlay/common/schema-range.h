// Bounds of numbers as GBNF: decimal texts without exponents between two bounds.
#pragma once

#include "schema-rules.h"

namespace kept {

struct bound {
    bool        set      = false;
    bool        excluded = false; // the bound itself is not allowed
    std::string text;             // a JSON number
};

// a < b, as JSON numbers: -1, 0, 1
int compare_numbers(const std::string & a, const std::string & b);

// the body of a rule for numbers of at most `decimals` digits behind the point (< 0: as many as suit), which are multiples of
// 10^zeros. Throws unheld: bounds finer than what a grammar and a double hold; nothing: none lies between them.
std::string number_range(const bound & lowest, const bound & highest, int decimals, int zeros);

// the body of a rule for integers that `divisor` divides: those above 0, and as said 0 and those below
std::string multiples(rules & out, int divisor, bool zero, bool below);

} // namespace kept
