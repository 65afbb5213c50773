// Reading answers: what a template's parser finds must not depend on how the text came, and never take back what was
// told.
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "chat.h"
#include "engine/llama/chat_request.h"
#include "engine/llama/template_chat.h"
#include "engine/message_delta.h"
#include "test/harness.h"
#include "test/vocabulary.h"

using Json = nlohmann::json;
using sllm::llama::TemplateChat;

namespace {

constexpr const char *tool_template = R"(
{%- if tools %}{{- '<|im_start|>system\n<tools>' }}
{%- for tool in tools %}{{- '\n' + tool | tojson }}{%- endfor %}
{{- '\n</tools><|im_end|>\n' }}{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.reasoning_content %}{{- '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{%- endif %}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %})";

constexpr const char *plain_template =
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}";

class Templates {
public:
    explicit Templates(const char *source)
        : templates_(common_chat_templates_init(vocabulary_.model(), source)) {}

    std::unique_ptr<TemplateChat> open(const Json &request) const {
        common_chat_templates_inputs inputs;
        CHECK_OK(sllm::llama::read_chat_request(request.dump(), &inputs));
        return std::make_unique<TemplateChat>(inputs, common_chat_templates_apply(templates_.get(), inputs));
    }

private:
    test::Vocabulary vocabulary_;
    common_chat_templates_ptr templates_;
};

Json request(bool with_tools) {
    Json json{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
    if (!with_tools) return json;
    const Json parameters{{"type", "object"}, {"properties", {{"city", {{"type", "string"}}}}}};
    json["tools"] = {{{"name", "weather"}, {"parameters", parameters}}, {{"name", "time"}, {"parameters", parameters}}};
    return json;
}

// A message put together from deltas.
struct Whole {
    std::string content;
    std::string reasoning;
    std::vector<std::pair<std::string, std::string>> calls;

    void add(const Json &delta) {
        content += delta.value("content", "");
        reasoning += delta.value("reasoning_content", "");
        for (const Json &call : delta.value("tool_calls", Json::array())) {
            const std::size_t index = call.at("index");
            if (call.contains("name")) {
                CHECK_EQ(index, calls.size());
                calls.emplace_back(call["name"], "");
            }
            CHECK(index < calls.size());
            calls[index].second += call.value("arguments", "");
        }
    }
    bool operator==(const Whole &) const = default;
};

Whole read(TemplateChat &chat, const std::vector<std::string> &pieces) {
    Whole whole;
    for (std::size_t i = 0; i <= pieces.size(); i++) {
        CHECK_OK(chat.feed(i < pieces.size() ? pieces[i] : std::string(), i == pieces.size()));
        whole.add(Json::parse(chat.delta()));
        chat.clear_delta();
    }
    return whole;
}

std::vector<std::string> characters(const std::string &text) {
    std::vector<std::string> pieces;
    for (const char byte : text) pieces.emplace_back(1, byte);
    return pieces;
}

constexpr const char *answer =
    "I will look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Verona \\\"V\\\"\"}}\n"
    "</tool_call>\n"
    "<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";

}  // namespace

TEST("chat: an answer with calls reads the same in one piece, in characters and cut anywhere") {
    const Templates templates(tool_template);
    const Whole once = read(*templates.open(request(true)), {answer});
    CHECK_EQ(once.calls.size(), 2u);
    CHECK_EQ(once.calls[0].first, "weather");
    CHECK(Json::parse(once.calls[0].second) == Json({{"city", "Verona \"V\""}}));
    CHECK_EQ(once.calls[1].first, "time");
    CHECK(once.content.starts_with("I will look."));
    CHECK(read(*templates.open(request(true)), characters(answer)) == once);
    const std::string text = answer;
    for (std::size_t cut = 1; cut < text.size(); cut += 3) {
        CHECK(read(*templates.open(request(true)), {text.substr(0, cut), text.substr(cut)}) == once);
    }
}

TEST("chat: reasoning is told apart from content") {
    const Templates templates(tool_template);
    const Whole whole = read(*templates.open(request(false)), characters("<think>\nHm, hm.\n</think>\n\nWell."));
    CHECK(whole.reasoning.find("Hm, hm.") != std::string::npos);
    CHECK_EQ(whole.content, "Well.");
}

TEST("chat: an answer of a plain template is its text, and need not be fed") {
    const Templates templates(plain_template);
    const auto chat = templates.open(request(false));
    const Json description = Json::parse(chat->description());
    CHECK(description.at("plain") == true);
    CHECK(description.at("constraint").is_null());
    CHECK_EQ(description.at("prompt").get<std::string>(), "user: Hi\nassistant: ");
    CHECK_EQ(read(*chat, characters("a <b> {c")).content, "a <b> {c");
}

TEST("chat: whatever a model writes, its reading neither fails nor takes back what was told") {
    const Templates templates(tool_template);
    std::mt19937_64 random(test::seed());
    const std::vector<std::string> parts = {"<tool_call>", "</tool_call>", "\n", "{", "}", "\"name\": ", "\"weather\"",
                                            "\"arguments\"", ": ", ", ", "<think>", "</think>", "word ", "ü", "\\",
                                            "\"", "<|im_end|>", "[1, 2]", "<tool_", " "};
    for (int round = 0; round < 40; round++) {
        std::vector<std::string> pieces(random() % 30);
        std::string text;
        for (std::string &piece : pieces) text += piece = parts[random() % parts.size()];
        Whole streamed = read(*templates.open(request(true)), pieces);
        // What was said is in the text: nothing is made up but the JSON of arguments.
        if (streamed.calls.empty()) CHECK(streamed.content.size() + streamed.reasoning.size() <= 2 * text.size());
    }
}

TEST("chat: conversations that are none are refused with the reason") {
    common_chat_templates_inputs inputs;
    for (const char *json : {"", "[]", "{}", R"({"messages": []})", R"({"messages": [{"content": "a"}]})",
                             R"({"messages": [{"role": "user", "content": 5}]})",
                             R"({"messages": [{"role": "user", "content": "a"}], "tools": [{}]})"}) {
        CHECK(sllm::llama::read_chat_request(json, &inputs).code() == sllm::Code::invalid_argument);
    }
}

TEST("chat: growth is told once, names whole, and nothing that was taken back") {
    sllm::MessageDelta delta;
    delta.grow({"He", {}, {}}, false);
    delta.grow({"Hello <to", {}, {}}, false);
    delta.grow({"Hello ", {}, {}}, false);
    CHECK_EQ(Json::parse(delta.json()).at("content").get<std::string>(), "Hello <to");
    delta.clear();
    CHECK_EQ(delta.json(), "{}");
    delta.grow({"", "", {{"wea", ""}}}, false);
    CHECK_EQ(delta.json(), "{}");
    delta.grow({"", "", {{"weather", "{\"a"}}}, false);
    delta.grow({"", "", {{"weather", "{\"a\":1}"}, {"ti", ""}}}, false);
    const Json json = Json::parse(delta.json());
    CHECK(json.at("tool_calls") == Json::array({{{"index", 0}, {"name", "weather"}, {"arguments", "{\"a\":1}"}}}));
    delta.clear();
    delta.grow({"", "", {{"weather", "{\"a\":1}"}, {"time", ""}}}, true);
    CHECK(Json::parse(delta.json()).at("tool_calls") == Json::array({{{"index", 1}, {"name", "time"}}}));
}

TEST_MAIN()
