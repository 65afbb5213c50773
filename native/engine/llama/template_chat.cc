// Describing a conversation, and reading its answer over and over as it grows.
#include "engine/llama/template_chat.h"

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/limits.h"

namespace sllm::llama {

namespace {

using Json = nlohmann::json;

// The whole text is read each time, so a long one is read again only when it grew by this part of itself: all readings
// together cost some dozens of the last one instead of half as many as there are tokens.
constexpr std::size_t growth = 64;

// The constraint of sllm_request; null when anything goes.
Json constraint_of(const common_chat_params &params) {
    if (params.grammar.empty() && params.preserved_tokens.empty()) return nullptr;
    Json constraint{{"shown", params.preserved_tokens}};
    if (params.grammar.empty()) return constraint;
    constraint["grammar"] = params.grammar;
    if (!params.grammar_lazy) {
        constraint["prefill"] = params.generation_prompt;
        return constraint;
    }
    constraint["lazy"] = true;
    for (const common_grammar_trigger &trigger : params.grammar_triggers) {
        std::string value = trigger.value;
        if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL) value = "^(?:" + value + ")$";
        const bool word = trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD;
        constraint["triggers"].push_back({{"type", word ? "word" : "pattern"}, {"value", value}});
    }
    return constraint;
}

}  // namespace

TemplateChat::TemplateChat(const common_chat_templates_inputs &inputs, common_chat_params params) : parser_(params) {
    parser_.reasoning_format = inputs.reasoning_format;
    if (!params.parser.empty()) parser_.parser.load(params.parser);
    const Json constraint = constraint_of(params);
    Json description{{"prompt", std::move(params.prompt)},
                     {"constraint", constraint.is_null() ? Json() : Json(constraint.dump())},
                     {"stops", params.additional_stops}};
    description["plain"] = is_plain(inputs, params);
    description_ = description.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool TemplateChat::is_plain(const common_chat_templates_inputs &inputs, const common_chat_params &params) const {
    if (!inputs.tools.empty() || params.supports_thinking || !inputs.json_schema.empty()) return false;
    // Formats that wrap even plain text show with a text that fits none of them.
    const std::string probe = "One\n\n two <three> {\"four\": 5}";
    try {
        const common_chat_msg message = common_chat_parse(probe, true, parser_);
        return message.content == probe && message.tool_calls.empty() && message.reasoning_content.empty();
    } catch (const std::exception &) {
        return false;  // not a text that this format can hold
    }
}

Status TemplateChat::feed(std::string_view text, bool last) {
    if (text_.size() + text.size() > limits::answer_bytes) {
        return {Code::invalid_argument, "the answer is too long to be taken apart"};
    }
    text_ += text;
    // Read at places that the text alone decides, however it came: what is told by then is the same in a run that goes
    // on from here.
    for (;;) {
        std::size_t next = read_bytes_ + std::max<std::size_t>(1, read_bytes_ / growth);
        while (next < text_.size() && (static_cast<unsigned char>(text_[next]) & 0xC0) == 0x80) next++;
        if (next > text_.size()) break;
        read(next, false);
    }
    if (last) read(text_.size(), true);
    return {};
}

void TemplateChat::read(std::size_t bytes, bool last) {
    read_bytes_ = bytes;
    AnswerMessage message;
    try {
        // Partial even at the end: an answer may have been cut by its length.
        common_chat_msg read = common_chat_parse(text_.substr(0, bytes), true, parser_);
        message.content = std::move(read.content);
        message.reasoning_content = std::move(read.reasoning_content);
        for (common_chat_tool_call &call : read.tool_calls) {
            message.tool_calls.push_back({std::move(call.name), std::move(call.arguments)});
        }
    } catch (const std::exception &) {
        if (!last) return;  // not readable yet
        message.content = text_;  // not in the model's own format: the client gets what it wrote
    }
    delta_.grow(message, last);
}

}  // namespace sllm::llama
