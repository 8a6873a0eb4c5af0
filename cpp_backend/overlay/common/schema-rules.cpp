#include "schema-rules.h"

#include <algorithm>
#include <cstdio>

namespace kept {

static const uint32_t LAST = 0x10FFFF;
static const int      CHUNK = 2000; // llama.cpp's MAX_REPETITION_THRESHOLD, also of all within a bracket that is repeated
static const int      FEW   = 50;

code_points normal(code_points set) {
    std::sort(set.begin(), set.end());
    code_points out;
    for (const auto & r : set) {
        if (!out.empty() && r.first <= out.back().second + 1) {
            out.back().second = std::max(out.back().second, r.second);
        } else {
            out.push_back(r);
        }
    }
    return out;
}

code_points complement(const code_points & set) {
    code_points out;
    uint32_t    next = 0;
    for (const auto & r : set) {
        if (r.first > next) {
            out.push_back({ next, r.first - 1 });
        }
        next = r.second + 1;
    }
    if (next <= LAST) {
        out.push_back({ next, LAST });
    }
    return out;
}

code_points intersection(const code_points & a, const code_points & b) {
    code_points both;
    for (const auto & x : a) {
        for (const auto & y : b) {
            if (std::max(x.first, y.first) <= std::min(x.second, y.second)) {
                both.push_back({ std::max(x.first, y.first), std::min(x.second, y.second) });
            }
        }
    }
    return normal(both);
}

std::vector<uint32_t> decode_utf8(const std::string & text) {
    std::vector<uint32_t> out;
    for (const unsigned char c : text) {
        if ((c & 0xC0) == 0x80 && !out.empty()) {
            out.back() = (out.back() << 6) | (c & 0x3F);
        } else {
            out.push_back(c < 0x80 ? c : c < 0xE0 ? c & 0x1F : c < 0xF0 ? c & 0x0F : c & 0x07);
        }
    }
    return out;
}

static std::string escaped(uint32_t c) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
        return std::string(1, (char) c);
    }
    char text[16];
    snprintf(text, sizeof(text), c < 0x100 ? "\\x%02X" : c < 0x10000 ? "\\u%04X" : "\\U%08X", (unsigned) c);
    return text;
}

static bool is_plain(uint32_t c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; }

std::string literal(const std::string & text) {
    std::string out = "\"";
    for (const uint32_t c : decode_utf8(text)) {
        out += is_plain(c) ? std::string(1, (char) c) : escaped(c);
    }
    return out + "\"";
}

std::string char_class(const code_points & set) {
    std::string out = "[";
    for (const auto & r : set) {
        out += escaped(r.first);
        if (r.second > r.first) {
            out += "-" + escaped(r.second);
        }
    }
    return out + "]";
}

std::string rules::reserve() { return prefix_ + std::to_string(n_++); }

std::string rules::add(const std::string & body) {
    auto & name = names_[body];
    if (name.empty()) {
        name = reserve();
        define(name, body);
    }
    return name;
}

std::string rules::repeat(const std::string & name, int min, int max) {
    if (min > MAX_REPEAT || max > MAX_REPEAT) {
        throw unheld("at most " + std::to_string(MAX_REPEAT) + " of anything");
    }
    if (max >= 0 && max < min) {
        throw nothing("a maximum below the minimum");
    }
    if (max == 0) {
        return "\"\"";
    }
    const auto number = [](int n) { return std::to_string(n); };
    if (min <= CHUNK && max <= CHUNK) {
        const std::string all = name + "{" + number(min) + "," + (max < 0 ? "" : number(max)) + "}";
        return std::max(min, max) > FEW ? add(all) : all;
    }
    const std::string rest = name + "{" + number(CHUNK) + "} " + repeat(name, std::max(min - CHUNK, 0), max < 0 ? max : max - CHUNK);
    return add(min >= CHUNK ? rest : name + "{" + number(min) + "," + number(CHUNK - 1) + "} | " + rest);
}

// what JSON does not let stand in a string, and halves of surrogate pairs
static const code_points & not_raw() {
    static const code_points set = { { 0, 0x1F }, { '"', '"' }, { '\\', '\\' }, { 0x7F, 0x7F }, { 0xD800, 0xDFFF } };
    return set;
}

std::string rules::string_char(const code_points & set) {
    std::vector<std::string> ways;
    const auto raw = intersection(set, complement(not_raw()));
    if (!raw.empty()) {
        ways.push_back(char_class(raw));
    }
    for (const auto & [c, letter] : std::vector<std::pair<uint32_t, char>>{
             { '\b', 'b' }, { '\t', 't' }, { '\n', 'n' }, { '\f', 'f' }, { '\r', 'r' }, { '"', '"' }, { '\\', '\\' } }) {
        if (!intersection(set, { { c, c } }).empty()) {
            ways.push_back(literal(std::string("\\") + letter));
        }
    }
    if (ways.empty()) {
        throw nothing("a character that JSON has to write as a number");
    }
    if (ways.size() == 1) {
        return ways[0];
    }
    std::string body = ways[0];
    for (size_t i = 1; i < ways.size(); ++i) {
        body += " | " + ways[i];
    }
    return add(body);
}

std::string rules::any_char() {
    return add(char_class(complement(not_raw())) + R"( | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2})"
        R"( | [dD] [89abAB] [0-9a-fA-F]{2} "\\u" [dD] [c-fC-F] [0-9a-fA-F]{2})))");
}

std::string rules::space() { return add(R"("" | " " | "\n" [ \t]{0,20})"); }

std::string rules::any_string() { return add("\"\\\"\" " + any_char() + "* \"\\\"\""); }

std::string rules::any_value() {
    const std::string key = "\x01value"; // no body: marks the rule, which contains itself
    if (names_.count(key)) {
        return names_[key];
    }
    const std::string name = names_[key] = reserve();
    const std::string sp = space(), string = any_string();
    const std::string number = add(R"("-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?)");
    const std::string member = add(string + " \":\" " + sp + " " + name);
    const std::string object = add("\"{\" " + sp + " (" + member + " (\",\" " + sp + " " + member + ")* " + sp + ")? \"}\"");
    const std::string array  = add("\"[\" " + sp + " (" + name + " (\",\" " + sp + " " + name + ")* " + sp + ")? \"]\"");
    define(name, object + " | " + array + " | " + string + " | " + number + R"( | "true" | "false" | "null")");
    return name;
}

std::string rules::text() const {
    std::string out;
    for (const auto & [name, body] : bodies_) {
        out += name + " ::= " + body + "\n";
    }
    return out;
}

} // namespace kept
