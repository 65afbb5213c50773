// Whether a request can be run at all: the ranges of its fields, its prompt against the context and the vocabulary.
#pragma once

#include "core/status.h"
#include "engine/backend.h"
#include "engine/session.h"

namespace sllm {

// INVALID_ARGUMENT naming what is wrong, or CONTEXT_OVERFLOW when the prompt leaves no room for a token.
Status check_request(const Request &request, const BackendFacts &facts);

}  // namespace sllm
