// What the loader needs of a GGUF header: where the data begins and where each tensor lies in it. The engine library
// reads the header again for everything else; this one is fast (it skips vocabularies), bounded, and refuses a broken
// file before the engine library sees it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>

#include "core/status.h"

namespace sllm {

struct GgufHeader {
    std::uint64_t data_offset = 0;  // also the length of the header
    std::uint64_t alignment = 32;
    std::unordered_map<std::string, std::uint64_t> tensor_offsets;  // from data_offset
};

// bytes: the file from its beginning, at least the header. CORRUPT tells what is wrong and where.
Status parse_gguf_header(std::span<const std::uint8_t> bytes, GgufHeader *out);

}  // namespace sllm
