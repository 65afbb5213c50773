// The decoder behind append_utf8: table 3-7 of the Unicode standard, byte by byte.
#include "core/utf8.h"

#include <cstddef>
#include <cstdint>

namespace sllm {

namespace {

struct Lead {
    std::size_t length;   // bytes of the character; 0: no character begins with this byte
    std::uint8_t low;     // range of the second byte, which excludes overlong forms, surrogates and what is
    std::uint8_t high;    // beyond U+10FFFF
};

Lead lead_of(std::uint8_t byte) {
    if (byte < 0x80) return {1, 0, 0};
    if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
    if (byte == 0xE0) return {3, 0xA0, 0xBF};
    if (byte == 0xED) return {3, 0x80, 0x9F};
    if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
    if (byte == 0xF0) return {4, 0x90, 0xBF};
    if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
    if (byte == 0xF4) return {4, 0x80, 0x8F};
    return {0, 0, 0};
}

}  // namespace

std::size_t append_utf8(std::string_view bytes, std::string *out) {
    std::size_t at = 0;
    while (at < bytes.size()) {
        const Lead lead = lead_of(static_cast<std::uint8_t>(bytes[at]));
        std::size_t n = 1;
        while (n < lead.length && at + n < bytes.size()) {
            const auto next = static_cast<std::uint8_t>(bytes[at + n]);
            const bool fits = n == 1 ? next >= lead.low && next <= lead.high : next >= 0x80 && next <= 0xBF;
            if (!fits) break;
            n++;
        }
        if (n == lead.length) {
            out->append(bytes.substr(at, n));
        } else if (lead.length > 0 && at + n == bytes.size()) {
            return n;
        } else {
            out->append(utf8_replacement);
        }
        at += n;
    }
    return 0;
}

bool is_utf8(std::string_view bytes) {
    std::string copy;
    return append_utf8(bytes, &copy) == 0 && copy == bytes;
}

}  // namespace sllm
