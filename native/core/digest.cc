// The one translation unit that compiles the vendored xxHash.
#include "core/digest.h"

#define XXH_INLINE_ALL
#include "hash/xxhash/xxhash.h"

namespace sllm {

std::uint64_t xxh3(const void *data, std::size_t n) { return XXH3_64bits(n == 0 ? "" : data, n); }

struct Xxh3::State {
    XXH3_state_t xxh;
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) { reset(); }

Xxh3::~Xxh3() = default;

void Xxh3::update(const void *data, std::size_t n) { XXH3_64bits_update(&state_->xxh, data, n); }

std::uint64_t Xxh3::value() const { return XXH3_64bits_digest(&state_->xxh); }

void Xxh3::reset() { XXH3_64bits_reset(&state_->xxh); }

}  // namespace sllm
