// How many tokens of prompts and of held sequences a step takes, so that whoever waits for its end does so for a
// bounded time: what steps take is measured, and the next ones are made to fit. Pure.
#pragma once

#include <cstdint>

#include "engine/batch_plan.h"

namespace sllm {

// A mean that the last values count most in; 0 before the first one.
class Smoothed {
public:
    double value() const { return value_; }
    void observe(double value) { value_ = value_ <= 0 ? value : value_ + weight * (value - value_); }

private:
    static constexpr double weight = 0.2;

    double value_ = 0;
};

// What a step computed and how long that took.
struct StepRecord {
    double ms = 0;
    std::uint32_t streams = 0;  // sequences that had one token left
    std::uint32_t prompts = 0;  // tokens of the others
    std::uint32_t held = 0;     // tokens of sequences that are held

    std::uint32_t tokens() const { return streams + prompts + held; }
};

class StepShares {
public:
    StepShares();

    // most: what no step exceeds. running: sequences; with_streams: whether any of them has one token left.
    StepLimits limits(const StepLimits &most, std::size_t running, bool with_streams) const;
    // A step that computed all that it was to.
    void observe(const StepRecord &step);

private:
    void observe_held(const StepRecord &step);

    Smoothed streams_ms_;  // of a step of streams alone
    Smoothed token_ms_;    // of a token of a longer sequence
    double held_tokens_;
};

}  // namespace sllm
