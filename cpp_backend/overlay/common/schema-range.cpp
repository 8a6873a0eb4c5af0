#include "schema-range.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace kept {

namespace {

const int MOST_DIGITS = 15; // of a double, all exact
const int DECIMALS    = 6;  // where the bounds do not ask for more
const int FREE_DIGITS = 16; // of a side without bound

// sign * digits * 10^exponent, digits without zeros at either end ("" is zero)
struct decimal {
    bool        negative = false;
    std::string digits;
    int64_t     exponent = 0;

    int64_t whole() const { return (int64_t) digits.size() + exponent; } // digits before the point, or less than 1
    int64_t behind() const { return digits.empty() ? 0 : std::max<int64_t>(-exponent, 0); }
};

decimal parse(const std::string & text) {
    decimal d;
    int64_t point = -1;
    size_t  i = 0;
    for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
        if (text[i] == '-') {
            d.negative = true;
        } else if (text[i] == '.') {
            point = (int64_t) d.digits.size();
        } else {
            d.digits += text[i];
        }
    }
    d.exponent = point < 0 ? 0 : point - (int64_t) d.digits.size();
    d.exponent += i < text.size() ? strtoll(text.c_str() + i + 1, nullptr, 10) : 0;
    while (!d.digits.empty() && d.digits.back() == '0') {
        d.digits.pop_back();
        ++d.exponent;
    }
    d.digits.erase(0, std::min(d.digits.find_first_not_of('0'), d.digits.size()));
    if (d.digits.empty()) {
        d = decimal();
    }
    return d;
}

int compare_magnitudes(const decimal & a, const decimal & b) {
    if (a.digits.empty() || b.digits.empty()) {
        return (int) b.digits.empty() - (int) a.digits.empty();
    }
    if (a.whole() != b.whole()) {
        return a.whole() < b.whole() ? -1 : 1;
    }
    const int c = a.digits.compare(b.digits); // left-aligned, no zeros at the end
    return c < 0 ? -1 : c > 0;
}

int compare(const decimal & a, const decimal & b) {
    if (a.negative != b.negative) {
        return a.negative ? -1 : 1;
    }
    return a.negative ? -compare_magnitudes(a, b) : compare_magnitudes(a, b);
}

// --- digits, as texts of one length ------------------------------------------------------------------------------------

std::string digit(char from, char to) { return from == to ? std::string("\"") + from + "\"" : std::string("[") + from + "-" + to + "]"; }
std::string any_digits(size_t min, size_t max) {
    const std::string most = std::to_string(max);
    return max == 1 && min == 1 ? "[0-9]" : "[0-9]{" + (min == max ? most : std::to_string(min) + "," + most) + "}";
}
bool        all_are(const std::string & s, char c) { return s.find_first_not_of(c) == std::string::npos; }

std::string either(const std::vector<std::string> & ways) {
    std::string out;
    for (const auto & w : ways) {
        out += (out.empty() ? "" : " | ") + w;
    }
    return ways.size() == 1 ? out : "(" + out + ")";
}

// texts of that many digits from low to high; behind: digits behind the point, where zeros at the end may be left out
std::string between(const std::string & low, const std::string & high, bool behind) {
    const size_t n = low.size();
    if (n == 0) {
        return "\"\"";
    }
    if (all_are(low, '0') && all_are(high, '9')) {
        return any_digits(behind ? 0 : n, n);
    }
    const std::string zeros(n - 1, '0'), nines(n - 1, '9');
    std::vector<std::string> ways;
    if (low[0] == high[0]) {
        ways.push_back(digit(low[0], low[0]) + " " + between(low.substr(1), high.substr(1), behind));
    } else {
        const bool low_open = all_are(low.substr(1), '0'), high_open = all_are(high.substr(1), '9');
        const char from = low_open ? low[0] : low[0] + 1, to = high_open ? high[0] : high[0] - 1;
        if (!low_open) {
            ways.push_back(digit(low[0], low[0]) + " " + between(low.substr(1), nines, behind));
        }
        if (from <= to) {
            ways.push_back(digit(from, to) + (n == 1 ? "" : " " + any_digits(behind ? 0 : n - 1, n - 1)));
        }
        if (!high_open) {
            ways.push_back(digit(high[0], high[0]) + " " + between(zeros, high.substr(1), behind));
        }
    }
    const std::string some = either(ways);
    return behind && all_are(low, '0') ? "(" + some + ")?" : some;
}

std::string trimmed(const std::string & s) {
    const size_t i = s.find_first_not_of('0');
    return i == std::string::npos ? "0" : s.substr(i);
}

bool less(const std::string & a, const std::string & b) { return a.size() != b.size() ? a.size() < b.size() : a < b; }

// 1 more or less, of a text of digits
std::string step(std::string s, int by) {
    const char full = by > 0 ? '9' : '0', empty = by > 0 ? '0' : '9';
    size_t i = s.size();
    while (i > 0 && s[i - 1] == full) {
        s[--i] = empty;
    }
    if (i == 0) {
        return by > 0 ? "1" + s : "0"; // nothing lies below 0
    }
    s[i - 1] += by;
    return trimmed(s);
}

// whole numbers from low to high, no zeros before them
std::string whole_between(std::string low, const std::string & high) {
    std::vector<std::string> ways;
    if (low == "1" + std::string(low.size() - 1, '0') && all_are(high, '9')) {
        return "[1-9] " + any_digits(low.size() - 1, high.size() - 1);
    }
    for (; low.size() < high.size(); low = "1" + std::string(low.size(), '0')) {
        ways.push_back(between(low, std::string(low.size(), '9'), false));
    }
    ways.push_back(between(low, high, false));
    return either(ways);
}

std::string point(const std::string & digits) { return "(\".\" " + digits + ")"; }

// digits behind the point from low to high, at least one where a point is written; "" where there can be none
std::string fraction(const std::string & low, const std::string & high) {
    if (low.empty()) {
        return "";
    }
    std::string some;
    if (all_are(low, '0') && all_are(high, '9')) {
        return " " + point(any_digits(1, low.size())) + "?";
    }
    std::vector<std::string> ways; // by the first digit, which has to be there
    for (char c = low[0]; c <= high[0]; ++c) {
        const std::string zeros(low.size() - 1, '0'), nines(low.size() - 1, '9');
        ways.push_back(digit(c, c) + " " + between(c == low[0] ? low.substr(1) : zeros, c == high[0] ? high.substr(1) : nines, true));
    }
    return " " + point(either(ways)) + (all_are(low, '0') ? "?" : "");
}

// --- magnitudes in units of 10^-decimals -----------------------------------------------------------------------------------

struct magnitudes {
    int         decimals, zeros;
    std::string low, high; // units of 10^-decimals, or of 10^zeros; texts of digits

    std::string body() const {
        const size_t d = (size_t) decimals;
        const auto   padded = [&](const std::string & s) { return s.size() <= d ? std::string(d + 1 - s.size(), '0') + s : s; };
        const std::string a = padded(low), b = padded(high);
        const std::string ia = trimmed(a.substr(0, a.size() - d)), fa = a.substr(a.size() - d);
        const std::string ib = trimmed(b.substr(0, b.size() - d)), fb = b.substr(b.size() - d);
        if (d == 0) {
            return with_zeros(ia, ib);
        }
        const std::string zeros_behind(d, '0'), nines(d, '9');
        if (ia == ib) {
            return "\"" + ia + "\"" + fraction(fa, fb);
        }
        std::vector<std::string> ways = { "\"" + ia + "\"" + fraction(fa, nines) };
        const bool        all_of_last = fb == nines;
        const std::string first = step(ia, 1), last = all_of_last ? ib : step(ib, -1);
        if (!less(last, first)) {
            ways.push_back(whole_between(first, last) + fraction(zeros_behind, nines));
        }
        if (!all_of_last) {
            ways.push_back("\"" + ib + "\"" + fraction(zeros_behind, fb));
        }
        return either(ways);
    }

    std::string with_zeros(const std::string & from, const std::string & to) const {
        if (zeros == 0) {
            return whole_between(from, to);
        }
        const std::string tail = " \"" + std::string((size_t) zeros, '0') + "\"";
        if (from != "0") {
            return whole_between(from, to) + tail;
        }
        return to == "0" ? "\"0\"" : "(\"0\" | " + whole_between("1", to) + tail + ")";
    }
};

// |d| in units of 10^-shift, rounded down; exact: whether it is that many
std::string units(const decimal & d, int64_t shift, bool & exact) {
    exact = true;
    if (d.digits.empty()) {
        return "0";
    }
    const int64_t n = d.whole() + shift; // digits that stay
    if (n <= 0) {
        exact = false;
        return "0";
    }
    if (n >= (int64_t) d.digits.size()) {
        return d.digits + std::string((size_t) (n - (int64_t) d.digits.size()), '0');
    }
    exact = false;
    return d.digits.substr(0, (size_t) n);
}

// the units at least (up) or at most |d|, past it when d itself is excluded; "-" when there are none left
std::string nearest(const decimal & d, bool excluded, bool up, int64_t shift) {
    bool exact;
    const std::string u = units(d, shift, exact);
    if (up) {
        return exact && !excluded ? u : step(u, 1);
    }
    return exact && excluded ? (u == "0" ? "-" : step(u, -1)) : u;
}

} // namespace

int compare_numbers(const std::string & a, const std::string & b) { return compare(parse(a), parse(b)); }

std::string number_range(const bound & lowest, const bound & highest, int decimals, int zeros) {
    const decimal lo = parse(lowest.set ? lowest.text : "0"), hi = parse(highest.set ? highest.text : "0");
    const int64_t whole = std::max<int64_t>({ lo.whole(), hi.whole(), 1 }), behind = std::max(lo.behind(), hi.behind());
    if (decimals < 0) {
        decimals = (int) std::min(std::max(behind, std::min((int64_t) DECIMALS, MOST_DIGITS - whole)), (int64_t) MOST_DIGITS);
        decimals = std::max(decimals, 0);
    }
    if (decimals > 0 && whole + decimals > MOST_DIGITS) {
        throw unheld("bounds of at most " + std::to_string(MOST_DIGITS) + " digits");
    }
    if (whole > 40 || behind > 40) {
        throw unheld("bounds of at most 40 digits");
    }
    const int64_t     shift = decimals - zeros;
    const std::string end(std::max((size_t) std::max<int64_t>(FREE_DIGITS + shift, 1), (size_t) std::max<int64_t>(whole + shift, 1)), '9');

    std::vector<std::string> ways;
    const auto add = [&](const std::string & sign, const std::string & from, const std::string & to) {
        if (from != "-" && to != "-" && !less(to, from)) {
            ways.push_back(sign + magnitudes{ decimals, zeros, from, to }.body());
        }
    };
    if (!lowest.set || lo.negative) { // below zero, from the bound nearer to it
        const std::string from = highest.set && hi.negative ? nearest(hi, highest.excluded, true, shift) : "1";
        add("\"-\" ", from, lowest.set ? nearest(lo, lowest.excluded, false, shift) : end);
    }
    if (!highest.set || !hi.negative) {
        const std::string from = lowest.set && !lo.negative ? nearest(lo, lowest.excluded, true, shift) : "0";
        add("", from, highest.set ? nearest(hi, highest.excluded, false, shift) : end);
    }
    if (ways.empty()) {
        throw nothing("bounds with no number between them that is written so");
    }
    return either(ways);
}

std::string multiples(rules & out, int divisor, bool zero, bool below) {
    std::vector<std::string> states(divisor);
    for (auto & s : states) {
        s = out.reserve();
    }
    const auto next = [&](int rest, char first) {
        std::vector<std::vector<char>> to(divisor);
        for (char c = first; c <= '9'; ++c) {
            to[(rest * 10 + (c - '0')) % divisor].push_back(c);
        }
        std::string text;
        for (int r = 0; r < divisor; ++r) {
            if (!to[r].empty()) {
                text += (text.empty() ? "[" : " | [") + std::string(to[r].begin(), to[r].end()) + "] " + states[r];
            }
        }
        return text;
    };
    for (int r = 0; r < divisor; ++r) {
        out.define(states[r], (r == 0 ? "\"\" | " : "") + next(r, '0'));
    }
    return std::string(zero ? "\"0\" | " : "") + (below ? "\"-\"? (" : "(") + next(0, '1') + ")";
}

} // namespace kept
