// Compiling and rendering.
#include "engine/llama/chat_renderer.h"

#include <exception>
#include <vector>

#include "chat.h"
#include "engine/llama/chat_request.h"
#include "engine/llama/template_chat.h"
#include "engine/messages.h"

namespace sllm::llama {

ChatRenderer::ChatRenderer(const llama_model *model) : model_(model), templates_(nullptr, common_chat_templates_free) {}

ChatRenderer::~ChatRenderer() = default;

Status ChatRenderer::prepare() {
    if (templates_) return {};
    if (llama_model_chat_template(model_, nullptr) == nullptr) {
        return {Code::invalid_argument, "the model has no chat template: use plain completions"};
    }
    try {
        templates_.reset(common_chat_templates_init(model_, "").release());
    } catch (const std::exception &error) {
        return {Code::invalid_argument, std::string("the model's chat template cannot be read: ") + error.what()};
    }
    return {};
}

Status ChatRenderer::render(std::string_view messages, std::string *out) {
    std::vector<Message> parsed;
    if (Status s = parse_messages(messages, &parsed); !s.ok()) return s;
    common_chat_templates_inputs inputs;
    for (Message &message : parsed) {
        common_chat_msg &added = inputs.messages.emplace_back();
        added.role = std::move(message.role);
        added.content = std::move(message.content);
    }
    const std::lock_guard lock(mutex_);
    if (Status s = prepare(); !s.ok()) return s;
    try {
        *out = common_chat_templates_apply(templates_.get(), inputs).prompt;
    } catch (const std::exception &error) {
        return {Code::invalid_argument, std::string("the chat template refuses the messages: ") + error.what()};
    }
    return {};
}

Status ChatRenderer::open(std::string_view request, std::unique_ptr<Chat> *out) {
    common_chat_templates_inputs inputs;
    if (Status s = read_chat_request(request, &inputs); !s.ok()) return s;
    const std::lock_guard lock(mutex_);
    if (Status s = prepare(); !s.ok()) return s;
    try {
        *out = std::make_unique<TemplateChat>(inputs, common_chat_templates_apply(templates_.get(), inputs));
    } catch (const std::exception &error) {
        return {Code::invalid_argument, std::string("the chat template refuses the conversation: ") + error.what()};
    }
    return {};
}

}  // namespace sllm::llama
