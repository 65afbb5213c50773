// How many tokens of held sequences a step takes, so that streams that stay lose little: what they cost is measured,
// and they may make a step half as long again. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/limits.h"

namespace sllm {

class HeldShare {
public:
    // At least one, so that a held sequence always gets on.
    std::uint32_t tokens() const {
        if (step_ms_ <= 0) return limits::held_tokens_first;
        if (token_ms_ <= 0) return std::min(limits::held_tokens, last_ + last_ / 2 + 1);
        const double affordable = allowed_part * step_ms_ / token_ms_;
        // One measurement is no law: it grows by half at most.
        const double most = std::min<double>(limits::held_tokens, last_ + last_ / 2.0 + 1);
        return static_cast<std::uint32_t>(std::clamp(affordable, 1.0, most));
    }

    // A step took so long, with streams alone when held is 0.
    void observe(double step_ms, std::uint32_t held) {
        if (held == 0) {
            step_ms_ = step_ms_ <= 0 ? step_ms : step_ms_ + weight * (step_ms - step_ms_);
            return;
        }
        last_ = held;
        if (step_ms_ <= 0) return;
        const double token_ms = std::max(0.0, step_ms - step_ms_) / held;
        token_ms_ = token_ms_ <= 0 ? token_ms : token_ms_ + weight * (token_ms - token_ms_);
    }

private:
    static constexpr double allowed_part = 0.5;
    static constexpr double weight = 0.2;

    double step_ms_ = 0;   // of streams alone
    double token_ms_ = 0;  // what a held token adds
    std::uint32_t last_ = limits::held_tokens_first;
};

}  // namespace sllm
