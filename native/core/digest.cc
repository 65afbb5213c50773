// The one translation unit that compiles the vendored xxHash.
#include "core/digest.h"

#define XXH_INLINE_ALL
#include "hash/xxhash/xxhash.h"

namespace sllm {

std::uint64_t xxh3(const void *data, std::size_t n) { return XXH3_64bits(n == 0 ? "" : data, n); }

}  // namespace sllm
