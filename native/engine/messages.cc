// The one place that parses JSON.
#include "engine/messages.h"

#include <nlohmann/json.hpp>

#include "core/limits.h"

namespace sllm {

Status parse_messages(std::string_view json, std::vector<Message> *out) {
    if (json.size() > limits::messages_bytes) return {Code::invalid_argument, "the messages are too long"};
    const auto parsed = nlohmann::json::parse(json, nullptr, false);
    if (!parsed.is_array() || parsed.empty()) {
        return {Code::invalid_argument, "messages must be a JSON array with at least one message"};
    }
    out->clear();
    for (const auto &message : parsed) {
        const std::string where = "messages[" + std::to_string(out->size()) + "]";
        if (!message.is_object()) return {Code::invalid_argument, where + " must be an object"};
        for (const char *field : {"role", "content"}) {
            if (!message.contains(field) || !message[field].is_string()) {
                return {Code::invalid_argument, where + "." + field + " must be a string"};
            }
        }
        out->push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
    }
    return {};
}

}  // namespace sllm
