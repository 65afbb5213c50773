// A conversation as it crosses the border: a JSON array of {"role","content"}.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"

namespace sllm {

struct Message {
    std::string role;
    std::string content;
};

// INVALID_ARGUMENT with the place and reason when it is no such array, or an empty one.
Status parse_messages(std::string_view json, std::vector<Message> *out);

}  // namespace sllm
