// From what a step computes to the calls of the backend that compute it, in a shape that keeps the promise of the
// engine's mode. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend.h"

namespace sllm {

// The next tokens of one slot's sequence.
struct BatchPart {
    std::uint32_t slot = 0;
    std::uint32_t position = 0;  // of the first
    std::span<const std::int32_t> tokens;
    bool ends = false;  // the sequence has no more: its next token is drawn after the last of these
    bool hurries = false;  // its next token is waited for longest
};

struct MicroBatch {
    struct Output {
        std::size_t part;   // into the parts given
        std::size_t index;  // into tokens
    };
    std::vector<BatchToken> tokens;
    std::vector<Output> outputs;
};

// lengths: tokens that the cache holds of every slot before the step, then of the spare one if the shape wants it; rows
// of no meaning go behind them.
//
// A free shape is one call with everything. A fixed one has a call for each part that hurries, then one for all single
// tokens, over adjacent slots (the library computes those together; a gap of few slots is filled), and one for each
// longer part, or for each token of one that has few. Where rows must not be alone, a second one goes with a lone one,
// outputs are at least two, and parts are whole.
std::vector<MicroBatch> shape_batches(std::span<const BatchPart> parts, const BatchShape &shape,
                                      std::span<const std::uint32_t> lengths);

}  // namespace sllm
