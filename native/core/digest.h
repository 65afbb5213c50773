// XXH3: the fast digest that every chunk read from disk is checked with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sllm {

// XXH3, 64 bits, seed 0. data may be null when n is 0. Some 10 GB/s and more on one core.
std::uint64_t xxh3(const void *data, std::size_t n);
// The same of several parts, one after the other.
std::uint64_t xxh3(std::span<const std::span<std::uint8_t>> parts);

}  // namespace sllm
