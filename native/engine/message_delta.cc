// Growth by prefix.
#include "engine/message_delta.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace sllm {

namespace {

// Appends what `now` has beyond `told` to both; nothing when it does not go on from it. A character that is cut in two
// waits for its rest.
void grow_text(const std::string &now, std::string *told, std::string *pending) {
    if (now.size() <= told->size() || !now.starts_with(*told)) return;
    const std::string more = now.substr(told->size());
    *pending += more;
    *told += more;
}

}  // namespace

void MessageDelta::grow(const AnswerMessage &message, bool last) {
    grow_text(message.reasoning_content, &told_.reasoning_content, &pending_.reasoning_content);
    grow_text(message.content, &told_.content, &pending_.content);
    for (std::size_t i = 0; i < message.tool_calls.size(); i++) {
        const MessageToolCall &call = message.tool_calls[i];
        // A name is told once and whole: that it is, shows in what follows it.
        const bool complete = last || !call.arguments.empty() || i + 1 < message.tool_calls.size();
        if (i > told_.tool_calls.size() || call.name.empty()) return;
        const bool begins = i == told_.tool_calls.size();
        if (begins && !complete) return;
        if (begins) told_.tool_calls.push_back({call.name, {}});
        if (told_.tool_calls[i].name != call.name) return;
        std::string more;
        grow_text(call.arguments, &told_.tool_calls[i].arguments, &more);
        if (!begins && more.empty()) continue;
        auto &pieces = pending_.calls;
        if (begins || pieces.empty() || pieces.back().index != i) pieces.push_back({i, begins, {}});
        pieces.back().arguments += more;
    }
}

std::string MessageDelta::json() const {
    nlohmann::json delta = nlohmann::json::object();
    if (!pending_.content.empty()) delta["content"] = pending_.content;
    if (!pending_.reasoning_content.empty()) delta["reasoning_content"] = pending_.reasoning_content;
    for (const Pending::Piece &piece : pending_.calls) {
        nlohmann::json call{{"index", piece.index}};
        if (piece.begins) call["name"] = told_.tool_calls[piece.index].name;
        if (!piece.arguments.empty()) call["arguments"] = piece.arguments;
        delta["tool_calls"].push_back(std::move(call));
    }
    return delta.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sllm
