// Compiling and rendering.
#include "engine/llama/chat_renderer.h"

#include <algorithm>
#include <exception>
#include <string>
#include <vector>

#include "chat.h"
#include "engine/llama/chat_request.h"
#include "engine/llama/template_chat.h"
#include "engine/messages.h"
#include "jinja/lexer.h"
#include "jinja/parser.h"

namespace sllm::llama {

namespace {

// What the parser says of the first `count` tokens; "" when nothing is wrong.
std::string parse_problem(jinja::lexer_result tokens, std::size_t count) {
    tokens.tokens.resize(count);
    try {
        static_cast<void>(jinja::parse_from_tokens(tokens));
        return "";
    } catch (const std::exception &error) {
        return error.what();
    }
}

// What is wrong with a template, and where. The library keeps that to its log, without the place: that is the last
// token of the shortest beginning of which the parser says the same.
std::string syntax_problem(const std::string &source) {
    jinja::lexer_result read;
    try {
        read = jinja::lexer().tokenize(source);
    } catch (const std::exception &error) {
        return error.what();  // with its place
    }
    const std::string problem = parse_problem(read, read.tokens.size());
    std::size_t low = 0;
    std::size_t high = read.tokens.size();
    while (low + 1 < high) {
        const std::size_t middle = (low + high) / 2;
        (parse_problem(read, middle) == problem ? high : low) = middle;
    }
    const std::size_t at = high == 0 ? 0 : read.tokens[high - 1].pos;
    const auto lines = std::count(read.source.begin(), read.source.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    return problem + ", at line " + std::to_string(lines + 1);
}

}  // namespace

ChatRenderer::ChatRenderer(const llama_model *model) : model_(model), templates_(nullptr, common_chat_templates_free) {}

ChatRenderer::~ChatRenderer() = default;

Status ChatRenderer::prepare() {
    if (templates_) return {};
    const char *source = llama_model_chat_template(model_, nullptr);
    if (source == nullptr) {
        return {Code::invalid_argument, "the model has no chat template: use plain completions"};
    }
    try {
        templates_.reset(common_chat_templates_init(model_, "").release());
    } catch (const std::exception &) {
        return {Code::invalid_argument, "the model's chat template cannot be read: " + syntax_problem(source)};
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
