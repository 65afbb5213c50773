// Whether a request can be run at all: the ranges of its fields, its prompt against the context and the vocabulary.
#pragma once

#include <cstdint>
#include <vector>

#include "core/status.h"
#include "engine/backend.h"
#include "engine/session.h"

namespace sllm {

// INVALID_ARGUMENT naming what is wrong, or CONTEXT_OVERFLOW when the prompt leaves no room for a token.
Status check_request(const Request &request, const BackendFacts &facts);

// INVALID_ARGUMENT naming a token that is not in the vocabulary.
Status check_tokens(const std::vector<std::int32_t> &tokens, const BackendFacts &facts);

}  // namespace sllm
