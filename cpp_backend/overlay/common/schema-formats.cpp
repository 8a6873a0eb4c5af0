// Formats of JSON schemas that a pattern can hold, some of them in their commonest form only.
#include "schema-pattern.h"

#define LABEL "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}"
#define HOST  LABEL "(?:\\." LABEL "){0,3}"
#define DATE                                                                                                                     \
    "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"                  \
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|[0-9]{2}(?:0[48]|[2468][048]|[13579][26])-02-29"
#define TIME  "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#define CLOCK "(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)"
#define BYTE  "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define UUID(digit) "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-" digit "[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"

namespace kept {

const char * format_pattern(const std::string & format) {
    static const std::map<std::string, const char *> patterns = {
        { "date",      "^(?:" DATE ")$" },
        { "time",      "^" TIME "$" },
        { "date-time", "^(?:" DATE ")T" TIME "$" },
        { "duration",  "^P(?:[0-9]{1,4}W|[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?(?:T" CLOCK ")?"
                       "|[0-9]{1,4}M(?:[0-9]{1,4}D)?(?:T" CLOCK ")?|[0-9]{1,4}D(?:T" CLOCK ")?|T" CLOCK ")$" },
        { "email",     "^[A-Za-z0-9_]{1,20}(?:[.+-][A-Za-z0-9_]{1,10}){0,3}@" LABEL "(?:\\." LABEL "){0,2}\\.[A-Za-z]{2,10}$" },
        { "hostname",  "^" HOST "$" },
        { "ipv4",      "^(?:" BYTE "\\.){3}" BYTE "$" },
        { "ipv6",      "^(?:(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|(?:[0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}|::1)$" },
        { "uri",       "^https?://" HOST "(?::[1-9][0-9]{0,3})?(?:/[A-Za-z0-9._~-]{1,60}){0,20}/?"
                       "(?:\\?[A-Za-z0-9._~=&-]{1,200})?(?:#[A-Za-z0-9._~-]{1,60})?$" },
        { "uuid",      "^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$" },
        { "uuid1", UUID("1") }, { "uuid3", UUID("3") }, { "uuid4", UUID("4") }, { "uuid5", UUID("5") },
    };
    const auto found = patterns.find(format);
    return found == patterns.end() ? nullptr : found->second;
}

} // namespace kept
