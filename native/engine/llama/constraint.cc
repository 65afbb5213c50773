// Reading a constraint, and what to ask libllama's grammar sampler in which order: it ends the process when a token
// comes that it does not allow.
#include "engine/llama/constraint.h"

#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>
#include <vector>

#include "common.h"
#include "core/limits.h"
#include "engine/llama/log.h"
#include "json-schema-to-grammar.h"

namespace sllm::llama {

namespace {

using Json = nlohmann::json;

Status unreadable(const std::string &what) { return {Code::invalid_argument, "constraint: " + what}; }

// The token that a text is alone, or -1.
std::int32_t single_token(const llama_vocab *vocab, const std::string &text) {
    const std::vector<llama_token> tokens = common_tokenize(vocab, text, false, true);
    return tokens.size() == 1 ? tokens[0] : -1;
}

std::string grammar_of(const Json &json) {
    if (!json.contains("json_schema")) return json.value("grammar", "");
    return json_schema_to_grammar(common_json::parse(json["json_schema"].dump()));
}

struct Triggers {
    std::vector<std::string> patterns;
    std::vector<llama_token> tokens;
};

// A word that is a control token triggers as that token: its text never passes by the grammar otherwise.
Status read_triggers(const llama_vocab *vocab, const Json &json, Triggers *out) {
    for (const Json &trigger : json) {
        if (!trigger.is_object() || !trigger.contains("value") || !trigger["value"].is_string()) {
            return unreadable("a trigger has no value");
        }
        const std::string value = trigger["value"];
        if (trigger.value("type", "word") == "pattern") {
            out->patterns.push_back(value);
        } else if (const std::int32_t token = single_token(vocab, value); token >= 0) {
            out->tokens.push_back(token);
        } else {
            out->patterns.push_back(regex_escape(value));
        }
    }
    if (out->patterns.empty() && out->tokens.empty()) return unreadable("a lazy grammar has no trigger");
    return {};
}

llama_sampler *make_grammar(const llama_vocab *vocab, const std::string &text, bool lazy, const Triggers &triggers) {
    if (!lazy) return llama_sampler_init_grammar(vocab, text.c_str(), "root");
    std::vector<const char *> patterns;
    for (const std::string &pattern : triggers.patterns) patterns.push_back(pattern.c_str());
    return llama_sampler_init_grammar_lazy_patterns(vocab, text.c_str(), "root", patterns.data(), patterns.size(),
                                                    triggers.tokens.data(), triggers.tokens.size());
}

}  // namespace

Status Constraint::create(const llama_vocab *vocab, std::string_view text, std::unique_ptr<Constraint> *out) {
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) return unreadable("it is no JSON object");
    std::unique_ptr<Constraint> constraint(new Constraint);
    try {
        for (const std::string shown : json.value("shown", Json::array())) {
            if (const std::int32_t token = single_token(vocab, shown); token >= 0) constraint->shown_.insert(token);
        }
        const std::string grammar = grammar_of(json);
        constraint->lazy_ = json.value("lazy", false);
        if (!grammar.empty()) {
            Triggers triggers;
            if (constraint->lazy_) {
                const Json list = json.value("triggers", Json::array());
                if (Status s = read_triggers(vocab, list, &triggers); !s.ok()) return s;
            }
            const LastWords words;
            constraint->grammar_.reset(make_grammar(vocab, grammar, constraint->lazy_, triggers));
            if (!constraint->grammar_) return unreadable("the grammar cannot be read: " + words.text());
        }
        // What the prompt ends with is part of what the grammar describes.
        if (constraint->grammar_ && !constraint->lazy_) {
            for (const llama_token token : common_tokenize(vocab, json.value("prefill", ""), false, true)) {
                if (Status s = constraint->accept(token); !s.ok()) return s;
            }
        }
    } catch (const std::exception &error) {
        return unreadable(error.what());
    }
    *out = std::move(constraint);
    return {};
}

bool Constraint::allows(std::int32_t token) const {
    llama_token_data data{token, 1, 0};
    llama_token_data_array single{&data, 1, -1, false};
    apply(&single);
    return !std::isinf(data.logit);
}

void Constraint::apply(llama_token_data_array *candidates) const {
    if (grammar_) llama_sampler_apply(grammar_.get(), candidates);
}

Status Constraint::accept(std::int32_t token) {
    if (!grammar_) return {};
    if (!allows(token)) {
        return {Code::invalid_argument, "the grammar does not allow token " + std::to_string(token) + " there"};
    }
    try {
        llama_sampler_accept(grammar_.get(), token);
        return {};
    } catch (const std::exception &error) {
        grammar_.reset();
        return lazy_ ? Status() : Status(Code::invalid_argument, error.what());
    }
}

}  // namespace sllm::llama
