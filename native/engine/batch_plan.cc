// The batching rule.
#include "engine/batch_plan.h"

#include <algorithm>

namespace sllm {

BatchPlan plan_batch(std::span<const std::unique_ptr<Session>> sessions, std::uint32_t batch_tokens) {
    BatchPlan plan;
    // Decoding goes first: a running stream never waits for another one's prompt longer than one step.
    for (const auto &session : sessions) {
        if (session->prefilling()) continue;
        const std::uint32_t position = session->prompt_tokens() + session->output_tokens - 1;
        plan.outputs.push_back({session.get(), plan.tokens.size()});
        plan.tokens.push_back({session->last_token, position, session->slot, true});
    }
    for (const auto &session : sessions) {
        const auto room = batch_tokens - static_cast<std::uint32_t>(plan.tokens.size());
        const std::uint32_t n = std::min(session->prompt_left(), room);
        for (std::uint32_t i = 0; i < n; i++) {
            const std::uint32_t position = session->prompt_done++;
            const bool last = !session->prefilling();
            if (last) plan.outputs.push_back({session.get(), plan.tokens.size()});
            plan.tokens.push_back({session->request.prompt[position], position, session->slot, last});
        }
    }
    return plan;
}

}  // namespace sllm
