// A request as it crosses the border.
#pragma once

#include "core/status.h"
#include "engine/session.h"
#include "sllm/sllm.h"

namespace sllm::abi {

// INVALID_ARGUMENT or CONTEXT_OVERFLOW for what cannot even be copied; the engine checks ranges.
Status read_request(const sllm_request &r, Request *out);

}  // namespace sllm::abi
