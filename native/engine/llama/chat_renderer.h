// The model's own chat template, through libllama-common.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "core/status.h"
#include "engine/chat.h"
#include "llama.h"

struct common_chat_templates;

namespace sllm::llama {

class ChatRenderer {
public:
    explicit ChatRenderer(const llama_model *model);
    ~ChatRenderer();

    // See sllm_engine_render_chat. A model without a template is refused: a made-up format would give text, but not
    // the answers the model was trained for. The template is compiled at the first call. [any]
    Status render(std::string_view messages, std::string *out);
    // See sllm_chat_open. [any]
    Status open(std::string_view request, std::unique_ptr<Chat> *out);

private:
    Status prepare();

    const llama_model *model_;
    std::mutex mutex_;  // held while rendering: the interpreter's own safety is not documented
    std::unique_ptr<common_chat_templates, void (*)(common_chat_templates *)> templates_;
};

}  // namespace sllm::llama
