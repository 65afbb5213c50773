// Reading a conversation. Types were checked by whoever made it; a wrong one is an error with its name all the same.
#include "engine/llama/chat_request.h"

#include <nlohmann/json.hpp>

#include "core/limits.h"

namespace sllm::llama {

namespace {

using Json = nlohmann::json;

common_chat_msg read_message(const Json &json) {
    common_chat_msg message;
    message.role = json.at("role");
    if (json.contains("content") && !json["content"].is_null()) message.content = json["content"];
    message.reasoning_content = json.value("reasoning_content", "");
    message.tool_call_id = json.value("tool_call_id", "");
    message.tool_name = json.value("name", "");
    for (const Json &call : json.value("tool_calls", Json::array())) {
        message.tool_calls.push_back({call.at("name"), call.at("arguments"), call.at("id")});
    }
    return message;
}

common_chat_tool_choice read_choice(const std::string &choice) {
    if (choice == "required") return COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    return choice == "none" ? COMMON_CHAT_TOOL_CHOICE_NONE : COMMON_CHAT_TOOL_CHOICE_AUTO;
}

}  // namespace

Status read_chat_request(std::string_view text, common_chat_templates_inputs *out) {
    if (text.size() > limits::messages_bytes) return {Code::invalid_argument, "the conversation is too long"};
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) return {Code::invalid_argument, "the conversation is no JSON object"};
    try {
        for (const Json &message : json.at("messages")) out->messages.push_back(read_message(message));
        if (out->messages.empty()) return {Code::invalid_argument, "messages must have at least one message"};
        for (const Json &tool : json.value("tools", Json::array())) {
            out->tools.push_back({tool.at("name"), tool.value("description", ""), tool.at("parameters").dump()});
        }
        out->tool_choice = read_choice(json.value("tool_choice", "auto"));
        out->parallel_tool_calls = json.value("parallel_tool_calls", false);
        if (json.contains("json_schema")) out->json_schema = json["json_schema"].dump();
        const Json arguments = json.value("template_arguments", Json::object());
        for (const auto &[name, value] : arguments.items()) out->chat_template_kwargs[name] = value.dump();
        out->enable_thinking = arguments.value("enable_thinking", true);
    } catch (const std::exception &error) {
        return {Code::invalid_argument, std::string("the conversation: ") + error.what()};
    }
    out->reasoning_format = COMMON_REASONING_FORMAT_AUTO;
    return {};
}

}  // namespace sllm::llama
