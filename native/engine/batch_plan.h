// How many tokens of every sequence the next step computes. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sllm {

struct StepLimits {
    std::uint32_t batch_tokens = 0;    // of a step, at least one per sequence
    std::uint32_t prefill_tokens = 0;  // of them for prompts, at least one, while any stream runs: bounds its pause
    std::uint32_t held_tokens = 0;     // of them for sequences that are held, at least one, while anything else runs
};

// left: tokens of each sequence that wait to be computed, in the order the sequences came. One token is what a running
// stream has: all of those are part of every step. Of the rest of the step a quarter goes to the longer one that came
// first, so that each gets on in its time, and all else to the one with the fewest left, then to the next: the mean
// time to a first token is shortest so, and a prompt does not wait for longer ones.
// held: the same for sequences that nobody waits for yet, 0 for all others and in `left` for these; they share evenly
// what the step has left over. turn: counts the steps; where not every one of them gets a part, another one is the
// first each time. Returns the tokens to take of each.
std::vector<std::uint32_t> plan_step(std::span<const std::uint32_t> left, std::span<const std::uint32_t> held,
                                     const StepLimits &limits, std::uint64_t turn);

}  // namespace sllm
