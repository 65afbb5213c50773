// How many tokens of held sequences a step takes, so that streams that stay lose little: what a step takes is measured,
// and held tokens may make it half as long again. Never fewer than some, because the source goes on meanwhile. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/limits.h"

namespace sllm {

class HeldShare {
public:
    std::uint32_t tokens() const { return static_cast<std::uint32_t>(tokens_); }

    // A step took so long, with streams alone when held is 0.
    void observe(double step_ms, std::uint32_t held) {
        if (held == 0) {
            streams_ms_ = streams_ms_ <= 0 ? step_ms : streams_ms_ + weight * (step_ms - streams_ms_);
            return;
        }
        // A step that had less to take than it could says nothing about more.
        if (streams_ms_ <= 0 || held < tokens()) return;
        // Up by little and down by a part: whatever a call costs beside its tokens.
        const bool is_short = step_ms <= longest * streams_ms_;
        tokens_ = is_short ? tokens_ + 1 : tokens_ * smaller;
        tokens_ = std::clamp<double>(tokens_, limits::held_tokens_first, limits::held_tokens);
    }

private:
    static constexpr double longest = 1.5;
    static constexpr double smaller = 0.8;
    static constexpr double weight = 0.2;

    double streams_ms_ = 0;  // of a step of streams alone
    double tokens_ = limits::held_tokens_first;
};

}  // namespace sllm
