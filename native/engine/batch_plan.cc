// The batching rule.
#include "engine/batch_plan.h"

#include <algorithm>

namespace sllm {

std::vector<std::uint32_t> plan_step(std::span<const std::uint32_t> left, const StepLimits &limits,
                                     std::uint64_t turn) {
    std::vector<std::uint32_t> taken(left.size(), 0);
    std::uint32_t streams = 0;
    for (std::size_t i = 0; i < left.size(); i++) {
        if (left[i] != 1) continue;
        taken[i] = 1;
        streams++;
    }
    std::uint32_t budget = limits.batch_tokens - streams;
    if (streams > 0) budget = std::min(budget, limits.prefill_tokens);
    // Rounds: each gives every prompt that still wants some the same share.
    for (;;) {
        std::uint32_t open = 0;
        for (std::size_t i = 0; i < left.size(); i++) {
            if (taken[i] < left[i]) open++;
        }
        if (open == 0 || budget == 0) return taken;
        const std::uint32_t share = std::max(1u, budget / open);
        for (std::size_t n = 0; n < left.size(); n++) {
            const std::size_t i = (turn + n) % left.size();
            const std::uint32_t more = std::min({share, left[i] - taken[i], budget});
            taken[i] += more;
            budget -= more;
        }
    }
}

}  // namespace sllm
