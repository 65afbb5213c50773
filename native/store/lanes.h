// The order in which the chunks of a load are read. One lane is the order of the file. With several, the file is cut
// into as many stretches of equal length and each gives a chunk in turn: devices that hold consecutive layers then all
// receive from the first chunk on, and none waits until those before it are full.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sllm {

class Lanes {
public:
    Lanes() = default;
    // More lanes than chunks are as many as chunks; 0 is one.
    Lanes(std::uint64_t chunks, std::uint32_t lanes)
        : chunks_(chunks),
          lanes_(static_cast<std::uint32_t>(std::clamp<std::uint64_t>(lanes, 1, std::max<std::uint64_t>(chunks, 1)))) {}

    std::uint32_t count() const { return lanes_; }

    // The first chunk of a lane; for count() the number of all.
    std::uint64_t begin(std::uint32_t lane) const {
        // Longer lanes come first, so that every turn goes through them in order.
        const std::uint64_t whole = chunks_ / lanes_;
        return lane * whole + std::min<std::uint64_t>(lane, chunks_ % lanes_);
    }

    std::uint32_t lane_of(std::uint64_t chunk) const {
        std::uint32_t lane = 0;
        while (begin(lane + 1) <= chunk) lane++;
        return lane;
    }

    // The chunk that is read as the n-th one, from 0; n < chunks.
    std::uint64_t nth(std::uint64_t n) const {
        return begin(static_cast<std::uint32_t>(n % lanes_)) + n / lanes_;
    }

private:
    std::uint64_t chunks_ = 0;
    std::uint32_t lanes_ = 1;
};

}  // namespace sllm
