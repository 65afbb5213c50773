// The random draw of sampling: a pure function of seed and position, so that a generation can be continued anywhere
// from its tokens alone and two continuations agree.
#pragma once

#include <cstdint>

namespace sllm {

// One round of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes all bits.
constexpr std::uint64_t splitmix64(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
}

// A number in [0, 1) with 53 bits for the token at `position` of a sequence (0 is its first token, prompt included).
// Seed and position are mixed apart before they meet, so that neighbouring seeds share no sub-sequence.
constexpr double draw(std::uint64_t seed, std::uint64_t position) {
    const std::uint64_t bits = splitmix64(splitmix64(seed) ^ splitmix64(position + 0xD1B54A32D192ED03));
    return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace sllm
