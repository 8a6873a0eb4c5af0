#include "schema-pattern.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <functional>

namespace kept {

namespace {

const int64_t UNBOUNDED = -1;
const int64_t MOST      = 1000000000; // times; Windows' long does not hold the product of two such
const int     MAX_DEPTH = 50;

struct expression {
    enum kind_t { SET, SEQUENCE, CHOICE, REPEAT } kind = SEQUENCE;
    code_points             set;
    std::vector<expression> parts; // of REPEAT: the one repeated
    int64_t                 min = 0, max = 0; // times
    bool                    begin = false, end = false; // SEQUENCE: anchored there
};

struct span {
    int64_t min, max; // code points; max UNBOUNDED
};

int64_t times(int64_t a, int64_t b) { return a == 0 || b == 0 ? 0 : a == UNBOUNDED || b == UNBOUNDED ? UNBOUNDED : std::min(a * b, MOST); }
int64_t plus(int64_t a, int64_t b)  { return a == UNBOUNDED || b == UNBOUNDED ? UNBOUNDED : a + b; }

span length(const expression & e) {
    switch (e.kind) {
        case expression::SET: return { 1, 1 };
        case expression::REPEAT: {
            const span one = length(e.parts[0]);
            return { times(one.min, e.min), times(one.max, e.max) };
        }
        case expression::SEQUENCE: {
            span all = { 0, 0 };
            for (const auto & p : e.parts) {
                const span one = length(p);
                all = { all.min + one.min, plus(all.max, one.max) };
            }
            return all;
        }
        case expression::CHOICE: {
            span all = length(e.parts[0]);
            for (const auto & p : e.parts) {
                const span one = length(p);
                all = { std::min(all.min, one.min), all.max == UNBOUNDED || one.max == UNBOUNDED ? UNBOUNDED : std::max(all.max, one.max) };
            }
            return all;
        }
    }
    return { 0, 0 };
}

// \d \w \s as ECMA-262 has them; their complements leave out what Unicode, and so Python and Rust, count as the same
const code_points DIGIT = { { '0', '9' } };
const code_points WORD  = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
const code_points SPACE = { { 9, 13 }, { ' ', ' ' }, { 0xA0, 0xA0 }, { 0x1680, 0x1680 }, { 0x2000, 0x200A }, { 0x2028, 0x2029 },
                            { 0x202F, 0x202F }, { 0x205F, 0x205F }, { 0x3000, 0x3000 } };
const code_points WIDE_DIGIT = { { '0', '9' }, { 0x660, 0x669 }, { 0x6F0, 0x6F9 }, { 0x7C0, 0x7C9 }, { 0x966, 0x96F }, { 0x9E6, 0x9EF },
                                 { 0xA66, 0xA6F }, { 0xAE6, 0xAEF }, { 0xB66, 0xB6F }, { 0xBE6, 0xBEF }, { 0xC66, 0xC6F }, { 0xCE6, 0xCEF },
                                 { 0xD66, 0xD6F }, { 0xDE6, 0xDEF }, { 0xE50, 0xE59 }, { 0xED0, 0xED9 }, { 0xF20, 0xF29 }, { 0x1040, 0x1049 },
                                 { 0x1090, 0x1099 }, { 0x17E0, 0x17E9 }, { 0x1810, 0x1A99 }, { 0x1B50, 0x1B59 }, { 0x1BB0, 0x1BB9 },
                                 { 0x1C40, 0x1C59 }, { 0xA620, 0xABF9 }, { 0xFF10, 0xFF19 }, { 0x104A0, 0x1FFFF } };
const code_points WIDE_WORD  = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' }, { 0x80, 0x200F }, { 0x2028, 0x202F }, { 0x205F, 0x10FFFF } };
const code_points WIDE_SPACE = { { 9, 13 }, { 0x1C, 0x20 }, { 0x85, 0x85 }, { 0xA0, 0xA0 }, { 0x1680, 0x1680 }, { 0x2000, 0x200A }, { 0x2028, 0x2029 },
                                 { 0x202F, 0x202F }, { 0x205F, 0x205F }, { 0x3000, 0x3000 }, { 0xFEFF, 0xFEFF } };
const code_points LINE_END = { { '\n', '\n' }, { '\r', '\r' }, { 0x2028, 0x2029 } };

class reader {
public:
    explicit reader(const std::string & pattern) : text_(decode_utf8(pattern)) {}

    // alternatives with their anchors
    std::vector<expression> whole() {
        std::vector<expression> out;
        do {
            out.push_back(sequence(true));
        } while (take('|'));
        if (more()) {
            throw unheld("no bracket that closes nothing");
        }
        return out;
    }

private:
    bool more() const { return at_ < text_.size(); }
    bool next_is(uint32_t c) const { return more() && text_[at_] == c; }
    bool take(uint32_t c) { return next_is(c) && ++at_; }
    bool take(const char * word) {
        const size_t begin = at_;
        for (; *word; ++word) {
            if (!take((uint32_t) (unsigned char) *word)) {
                at_ = begin;
                return false;
            }
        }
        return true;
    }
    uint32_t get(const char * what) {
        if (!more()) {
            throw unheld(std::string("no pattern that ends within ") + what);
        }
        return text_[at_++];
    }

    expression sequence(bool top) {
        expression out;
        out.begin = top && take('^');
        while (more() && !next_is('|') && !next_is(')')) {
            if (top && next_is('$') && (at_ + 1 == text_.size() || text_[at_ + 1] == '|')) {
                ++at_;
                out.end = true;
                break;
            }
            out.parts.push_back(quantified(atom()));
        }
        return out;
    }

    expression group() {
        if (++depth_ > MAX_DEPTH) {
            throw unheld("groups at most " + std::to_string(MAX_DEPTH) + " deep");
        }
        if (take('?') && !take(':')) {
            take('P'); // Python's names
            if (!take('<') || next_is('=') || next_is('!')) {
                throw unheld("groups (...), (?:...) and (?<name>...) only, no looking ahead or behind");
            }
            while (get("a name") != '>') {}
        }
        expression out;
        out.kind = expression::CHOICE;
        do {
            out.parts.push_back(sequence(false));
        } while (take('|'));
        if (!take(')')) {
            throw unheld("each bracket closed");
        }
        --depth_;
        return out;
    }

    expression atom() {
        expression out;
        out.kind = expression::SET;
        switch (const uint32_t c = get("a character")) {
            case '(':  return group();
            case '.':  out.set = complement(LINE_END); break;
            case '[':  out.set = bracket(); break;
            case '\\': out.set = escape(false, false); break;
            case '^': case '$': throw unheld("^ at the beginning and $ at the end only");
            case '*': case '+': case '?': case '{': case '}': case ']':
                throw unheld(std::string("no '") + (char) c + "' that stands alone (write \\" + (char) c + ")");
            default:   out.set = { { c, c } };
        }
        return out;
    }

    int64_t number() {
        if (!more() || !isdigit((int) std::min(text_[at_], 127u))) {
            throw unheld("numbers in {...}");
        }
        int64_t n = 0;
        while (more() && text_[at_] >= '0' && text_[at_] <= '9') {
            n = std::min(n * 10 + (int64_t) (text_[at_++] - '0'), MOST);
        }
        return n;
    }

    expression quantified(expression one) {
        expression out;
        out.kind = expression::REPEAT;
        if (take('*')) {
            out.min = 0, out.max = UNBOUNDED;
        } else if (take('+')) {
            out.min = 1, out.max = UNBOUNDED;
        } else if (take('?')) {
            out.min = 0, out.max = 1;
        } else if (take('{')) {
            out.min = out.max = number();
            if (take(',')) {
                out.max = next_is('}') ? UNBOUNDED : number();
            }
            if (!take('}') || (out.max != UNBOUNDED && out.max < out.min)) {
                throw unheld("{n}, {n,} or {n,m} with n at most m");
            }
        } else {
            return one;
        }
        take('?'); // lazy: the same texts
        if (next_is('*') || next_is('+') || next_is('?') || next_is('{')) {
            throw unheld("one quantifier at a time");
        }
        out.parts.push_back(std::move(one));
        return out;
    }

    uint32_t hex(int n) {
        uint32_t value = 0;
        for (int i = 0; i < n; ++i) {
            const uint32_t c = get("an escape");
            if (c > 127 || !isxdigit((int) c)) {
                throw unheld("hexadecimal digits in an escape");
            }
            value = value * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        }
        return value;
    }

    uint32_t unicode() {
        if (!take('{')) {
            const uint32_t c = hex(4);
            if (c >= 0xD800 && c < 0xDC00 && take("\\u")) {
                return 0x10000 + ((c - 0xD800) << 10) + (hex(4) - 0xDC00);
            }
            return c;
        }
        uint32_t c = 0;
        while (!take('}')) {
            c = c * 16 + hex(1);
            if (c > 0x10FFFF) {
                throw unheld("code points up to 10FFFF");
            }
        }
        return c;
    }

    // wide: what it names is excluded
    code_points escape(bool in_class, bool wide) {
        const uint32_t c = get("an escape");
        const auto one = [](uint32_t x) { return code_points{ { x, x } }; };
        switch (c) {
            case 'd': return wide ? WIDE_DIGIT : DIGIT;
            case 'w': return wide ? WIDE_WORD : WORD;
            case 's': return wide ? WIDE_SPACE : SPACE;
            case 'D': return complement(wide ? DIGIT : WIDE_DIGIT);
            case 'W': return complement(wide ? WORD : WIDE_WORD);
            case 'S': return complement(wide ? SPACE : WIDE_SPACE);
            case 't': return one('\t');
            case 'n': return one('\n');
            case 'r': return one('\r');
            case 'f': return one('\f');
            case 'v': return one('\v');
            case 'x': return one(hex(2));
            case 'u': return one(unicode());
            case 'b': if (in_class) { return one('\b'); }
        }
        if (c < 128 && isalnum((int) c)) {
            throw unheld(std::string("no \\") + (char) c);
        }
        return one(c);
    }

    static code_points joined(code_points a, const code_points & b) {
        a.insert(a.end(), b.begin(), b.end());
        return a;
    }

    code_points bracket() {
        const bool  negated = take('^');
        code_points set;
        while (!take(']')) {
            code_points from = class_item(negated);
            if (next_is('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
                ++at_;
                const code_points to = class_item(negated);
                if (from.size() != 1 || to.size() != 1 || from[0].first != from[0].second || to[0].first != to[0].second || to[0].first < from[0].first) {
                    throw unheld("ranges from a character to a later one");
                }
                from[0].second = to[0].first;
            }
            set = joined(std::move(set), from);
        }
        set = normal(std::move(set));
        if (!negated && set.empty()) {
            throw nothing("a class without characters");
        }
        return negated ? complement(set) : set;
    }

    code_points class_item(bool negated) {
        const uint32_t c = get("[...]");
        return c == '\\' ? escape(true, negated) : code_points{ { c, c } };
    }

    std::vector<uint32_t> text_;
    size_t                at_    = 0;
    int                   depth_ = 0;
};

std::string body(rules & out, const expression & e);

// one element: what is repeated counts as one rule to llama.cpp
std::string element(rules & out, const expression & e) {
    switch (e.kind) {
        case expression::SET:    return out.string_char(e.set);
        case expression::REPEAT: return out.repeat(element(out, e.parts[0]), (int) e.min, (int) e.max);
        default:                 return out.add(body(out, e));
    }
}

std::string body(rules & out, const expression & e) {
    if (e.kind != expression::SEQUENCE && e.kind != expression::CHOICE) {
        return element(out, e);
    }
    std::string text;
    for (const auto & p : e.parts) {
        text += text.empty() ? "" : e.kind == expression::CHOICE ? " | " : " ";
        text += e.kind == expression::CHOICE ? body(out, p) : element(out, p);
    }
    return text.empty() ? "\"\"" : text;
}

// --- patterns together with minLength and maxLength ----------------------------------------------------------------

// how many code points one round of it adds, 0 where that varies
int64_t step(const expression & e) {
    if (e.kind != expression::REPEAT) {
        return 0;
    }
    const span one = length(e.parts[0]);
    return one.min == one.max ? one.min : 0;
}

// fewer rounds, evenly, so that all together has at most max code points
void shorten(expression & e, int64_t max) {
    int64_t room = max, open = 0;
    for (const auto & p : e.parts) {
        const span all = length(p);
        if (!step(p) && all.max == UNBOUNDED) {
            throw unheld("no maxLength beside a part that varies in steps of different sizes");
        }
        room -= step(p) ? all.min : all.max;
        open += step(p) > 0;
    }
    if (room < 0) {
        throw unheld("no maxLength that cuts a part of the pattern which varies");
    }
    for (auto & p : e.parts) {
        if (const int64_t n = step(p)) {
            const int64_t rounds = room / open-- / n;
            const int64_t added  = p.max == UNBOUNDED ? rounds : std::min(rounds, p.max - p.min);
            p.max = p.min + added;
            room -= added * n;
        }
    }
}

// more rounds, so that it has at least min code points
void lengthen(expression & e, int64_t min) {
    int64_t missing = min - length(e).min;
    for (auto & p : e.parts) {
        if (const int64_t n = step(p); n && missing > 0) {
            const int64_t rounds = (missing + n - 1) / n;
            const int64_t added  = p.max == UNBOUNDED ? rounds : std::min(rounds, p.max - p.min);
            p.min += added;
            missing -= added * n;
        }
    }
    if (missing > 0) {
        throw unheld("no minLength that the pattern reaches only by parts of different sizes");
    }
}

void fit(expression & e, int64_t min, int64_t max) {
    const span all = length(e);
    if (all.min > max && max >= 0) {
        throw nothing("a pattern longer than maxLength");
    }
    if (all.max != UNBOUNDED && all.max < min) {
        throw nothing("a pattern shorter than minLength");
    }
    if (max >= 0 && (all.max == UNBOUNDED || all.max > max)) {
        shorten(e, max);
    }
    if (all.min < min) {
        lengthen(e, min);
    }
}

// Pydantic's patterns of decimal numbers begin with it: not a sign or a point alone. Held by a digit that must be there.
const std::string A_DIGIT_IN_IT = "^(?!^[-+.]*$)";

void demand_digit(expression & e) {
    for (auto & p : e.parts) {
        if (p.kind == expression::REPEAT && p.parts[0].kind == expression::SET && p.parts[0].set == DIGIT && p.max != 0) {
            p.min = std::max<int64_t>(p.min, 1);
            return;
        }
    }
    throw unheld("no looking ahead or behind");
}

std::vector<expression> alternatives(const std::string & pattern) {
    if (pattern.compare(0, A_DIGIT_IN_IT.size(), A_DIGIT_IN_IT) == 0) {
        auto all = reader("^" + pattern.substr(A_DIGIT_IN_IT.size())).whole();
        std::for_each(all.begin(), all.end(), demand_digit);
        return all;
    }
    auto all = reader(pattern).whole();
    if (all.size() == 1 && all[0].begin && all[0].end && all[0].parts.size() == 1 && all[0].parts[0].kind == expression::CHOICE) {
        const auto inner = std::move(all[0].parts[0].parts); // ^(a|b)$ is ^a$|^b$
        all.assign(inner.begin(), inner.end());
        for (auto & a : all) {
            a.begin = a.end = true;
        }
    }
    return all;
}

expression anything() {
    expression any, out;
    any.kind = expression::SET;
    any.set  = complement({});
    out.kind = expression::REPEAT;
    out.max  = UNBOUNDED;
    out.parts.push_back(std::move(any));
    return out;
}

} // namespace

std::string pattern_string(rules & out, const std::string & pattern, int min, int max) {
    std::string text, why = "a text that fits";
    for (auto & e : alternatives(pattern)) {
        if (!e.begin) {
            e.parts.insert(e.parts.begin(), anything());
        }
        if (!e.end) {
            e.parts.push_back(anything());
        }
        try {
            fit(e, min, max);
            text += (text.empty() ? "" : " | ") + body(out, e);
        } catch (const nothing & error) {
            why = error.what();
        }
    }
    if (text.empty()) {
        throw nothing(why);
    }
    return "\"\\\"\" (" + text + ") \"\\\"\"";
}

} // namespace kept
