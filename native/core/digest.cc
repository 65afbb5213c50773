// The one translation unit that compiles the vendored xxHash.
#include "core/digest.h"

#define XXH_INLINE_ALL
#include "hash/xxhash/xxhash.h"

namespace sllm {

std::uint64_t xxh3(const void *data, std::size_t n) { return XXH3_64bits(n == 0 ? "" : data, n); }

std::uint64_t xxh3(std::span<const std::span<std::uint8_t>> parts) {
    if (parts.size() == 1) return xxh3(parts[0].data(), parts[0].size());
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (const std::span<std::uint8_t> part : parts) XXH3_64bits_update(&state, part.data(), part.size());
    return XXH3_64bits_digest(&state);
}

}  // namespace sllm
