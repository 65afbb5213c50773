// Prompts take as much as fits a time, by what a token of them costs; held tokens take what streams can spare.
#include "engine/step_shares.h"

#include <algorithm>

#include "core/limits.h"

namespace sllm {

namespace {

// A step with prompts, in parts of one of streams alone: streams that stay pause so long, and prompts get on at three
// quarters of the speed that they could have or more.
constexpr double longest_with_prompts = 4;
// A step with held tokens: nobody waits for them yet.
constexpr double longest_with_held = 1.5;
// What is left of the held tokens after a step that was longer.
constexpr double smaller = 0.8;

}  // namespace

StepShares::StepShares() : held_tokens_(limits::held_tokens_first) {}

StepLimits StepShares::limits(const StepLimits &most, std::size_t running, bool with_streams) const {
    StepLimits now = most;
    now.held_tokens = static_cast<std::uint32_t>(held_tokens_);
    if (token_ms_.value() <= 0) return now;
    const double least_ms = with_streams ? limits::stream_pause_ms : limits::step_ms;
    const double budget_ms = std::max(least_ms, (longest_with_prompts - 1) * streams_ms_.value());
    const double fitting = std::clamp<double>(budget_ms / token_ms_.value(), limits::prompt_tokens_least,
                                              limits::batch_tokens_max);
    const auto tokens = static_cast<std::uint32_t>(fitting);
    now.prefill_tokens = std::min(most.prefill_tokens, tokens);
    if (!with_streams) {
        now.batch_tokens = std::min(most.batch_tokens, std::max(tokens, static_cast<std::uint32_t>(running)));
    }
    return now;
}

void StepShares::observe(const StepRecord &step) {
    if (step.prompts == 0 && step.streams > 0) {
        if (step.held > 0) observe_held(step);
        else streams_ms_.observe(step.ms);
        return;
    }
    // Few tokens cost what a call costs, and those of two kinds cannot be told apart.
    const std::uint32_t tokens = step.prompts + step.held;
    if (tokens < limits::prompt_tokens_least || (step.streams > 0 && step.held > 0)) return;
    const double others_ms = step.streams > 0 ? std::min(streams_ms_.value(), step.ms) : 0;
    token_ms_.observe((step.ms - others_ms) / tokens);
}

void StepShares::observe_held(const StepRecord &step) {
    // A step that had less to take than it could says nothing about more.
    if (streams_ms_.value() <= 0 || step.held < static_cast<std::uint32_t>(held_tokens_)) return;
    // Up by little and down by a part: whatever a call costs beside its tokens.
    const bool is_short = step.ms <= longest_with_held * streams_ms_.value();
    held_tokens_ = is_short ? held_tokens_ + 1 : held_tokens_ * smaller;
    held_tokens_ = std::clamp<double>(held_tokens_, limits::held_tokens_first, limits::held_tokens);
}

}  // namespace sllm
