// A conversation as it crosses the border, read into libllama-common's terms.
#pragma once

#include <string_view>

#include "chat.h"
#include "core/status.h"

namespace sllm::llama {

// json: see sllm_chat_open. INVALID_ARGUMENT with the place and reason when it is something else.
Status read_chat_request(std::string_view json, common_chat_templates_inputs *out);

}  // namespace sllm::llama
