// The batching rule.
#include "engine/batch_plan.h"

#include <algorithm>
#include <numeric>

namespace sllm {

namespace {

// Rounds: each gives every sequence that still wants some the same share of the budget.
void share_out(std::span<const std::uint32_t> wanted, std::uint32_t budget, std::uint64_t turn,
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
    share_out(left, streams > 0 ? std::min(rest, limits.prefill_tokens) : rest, turn, &taken);

    const std::uint32_t urgent = std::accumulate(taken.begin(), taken.end(), 0u);
    const std::uint32_t spare = limits.batch_tokens - urgent;
    share_out(held, urgent > 0 ? std::min(spare, limits.held_tokens) : spare, turn, &taken);
    return taken;
}

}  // namespace sllm
