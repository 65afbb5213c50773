// The batching rule.
#include "engine/batch_plan.h"

#include <algorithm>
#include <numeric>

namespace sllm {

namespace {

// Of the budget, for the sequence that came first.
constexpr std::uint32_t first_part = 4;

// To the first one its part, then by what is left.
void give_prompts(std::span<const std::uint32_t> left, std::uint32_t budget, std::vector<std::uint32_t> *taken) {
    std::vector<std::size_t> prompts;
    for (std::size_t i = 0; i < left.size(); i++) {
        if (left[i] > 1) prompts.push_back(i);
    }
    const auto give = [&](std::size_t i, std::uint32_t most) {
        const std::uint32_t more = std::min({left[i] - (*taken)[i], most, budget});
        (*taken)[i] += more;
        budget -= more;
    };
    if (!prompts.empty()) give(prompts.front(), std::max(1u, budget / first_part));
    std::stable_sort(prompts.begin(), prompts.end(), [&](std::size_t a, std::size_t b) { return left[a] < left[b]; });
    for (const std::size_t i : prompts) give(i, budget);
}

// Rounds: each gives every sequence that still wants some the same share of the budget.
void share_evenly(std::span<const std::uint32_t> wanted, std::uint32_t budget, std::uint64_t turn,
                  std::vector<std::uint32_t> *taken) {
    for (;;) {
        std::uint32_t open = 0;
        for (std::size_t i = 0; i < wanted.size(); i++) {
            if ((*taken)[i] < wanted[i]) open++;
        }
        if (open == 0 || budget == 0) return;
        const std::uint32_t share = std::max(1u, budget / open);
        for (std::size_t n = 0; n < wanted.size(); n++) {
            const std::size_t i = (turn + n) % wanted.size();
            if ((*taken)[i] >= wanted[i]) continue;
            const std::uint32_t more = std::min({share, wanted[i] - (*taken)[i], budget});
            (*taken)[i] += more;
            budget -= more;
        }
    }
}

}  // namespace

std::vector<std::uint32_t> plan_step(std::span<const std::uint32_t> left, std::span<const std::uint32_t> held,
                                     const StepLimits &limits, std::uint64_t turn) {
    std::vector<std::uint32_t> taken(left.size(), 0);
    std::uint32_t streams = 0;
    for (std::size_t i = 0; i < left.size(); i++) {
        if (left[i] != 1) continue;
        taken[i] = 1;
        streams++;
    }
    const std::uint32_t rest = limits.batch_tokens - streams;
    give_prompts(left, streams > 0 ? std::min(rest, limits.prefill_tokens) : rest, &taken);

    const std::uint32_t urgent = std::accumulate(taken.begin(), taken.end(), 0u);
    const std::uint32_t spare = limits.batch_tokens - urgent;
    share_evenly(held, urgent > 0 ? std::min(spare, limits.held_tokens) : spare, turn, &taken);
    return taken;
}

}  // namespace sllm
