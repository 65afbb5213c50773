// A conversation in the model's own format: what its template rendered, and the parser that goes with it.
#pragma once

#include <string>
#include <string_view>

#include "chat.h"
#include "engine/chat.h"
#include "engine/message_delta.h"

namespace sllm::llama {

class TemplateChat : public Chat {
public:
    // params: what the template made of the inputs. Throws what libllama-common throws about its own parser.
    TemplateChat(const common_chat_templates_inputs &inputs, common_chat_params params);

    const std::string &description() const override { return description_; }
    Status feed(std::string_view text, bool last) override;
    std::string delta() const override { return delta_.json(); }
    void clear_delta() override { delta_.clear(); }

private:
    bool is_plain(const common_chat_templates_inputs &inputs, const common_chat_params &params) const;
    void read(std::size_t bytes, bool last);

    common_chat_parser_params parser_;
    std::string description_;
    std::string text_;
    std::size_t read_bytes_ = 0;  // of text_, when it was read last
    MessageDelta delta_;
};

}  // namespace sllm::llama
