// What the next step computes: one token of every session that decodes, then as much prompt as fits. Pure.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/session.h"

namespace sllm {

struct BatchPlan {
    struct Output {
        Session *session;
        std::size_t index;  // into tokens
    };
    std::vector<BatchToken> tokens;
    std::vector<Output> outputs;  // sessions that get a token from this step
};

// sessions: oldest first, which is the order prompts are served in. batch_tokens >= sessions.size(). Marks the prompt
// tokens it takes as done.
BatchPlan plan_batch(std::span<const std::unique_ptr<Session>> sessions, std::uint32_t batch_tokens);

}  // namespace sllm
