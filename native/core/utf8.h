// UTF-8 as it arrives in pieces: whole characters go on, ill-formed bytes become U+FFFD, an unfinished character waits.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sllm {

// Appends the well-formed form of bytes to out. Every maximal ill-formed sequence becomes one U+FFFD (as the Unicode
// standard recommends). Returns how many bytes at the end are the beginning of a character that more bytes could
// complete: these are not appended.
std::size_t append_utf8(std::string_view bytes, std::string *out);

// Whether bytes are well-formed and whole.
bool is_utf8(std::string_view bytes);

// Bytes of U+FFFD, the replacement character.
inline constexpr std::string_view utf8_replacement = "\xEF\xBF\xBD";

}  // namespace sllm
