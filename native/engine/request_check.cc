// What makes a request impossible, whatever the engine does otherwise.
#include "engine/request_check.h"

#include <string>

#include "core/limits.h"
#include "core/utf8.h"

namespace sllm {

Status check_request(const Request &request, const BackendFacts &facts) {
    if (request.prompt.empty()) return {Code::invalid_argument, "the prompt has no tokens"};
    if (request.prompt.size() >= facts.context_tokens) {
        return {Code::context_overflow, "the prompt has " + std::to_string(request.prompt.size()) +
                                            " tokens, the context " + std::to_string(facts.context_tokens)};
    }
    if (request.prompt.size() + request.resume.size() > facts.context_tokens) {
        return {Code::context_overflow, "prompt and resumed output have " +
                                            std::to_string(request.prompt.size() + request.resume.size()) +
                                            " tokens, the context " + std::to_string(facts.context_tokens)};
    }
    for (const std::vector<std::int32_t> *tokens : {&request.prompt, &request.resume}) {
        for (const std::int32_t token : *tokens) {
            if (token < 0 || static_cast<std::uint32_t>(token) >= facts.vocabulary_tokens) {
                return {Code::invalid_argument, "token " + std::to_string(token) + " is not in the vocabulary"};
            }
        }
    }
    if (Status s = check_sampling(request.sampling, facts.vocabulary_tokens); !s.ok()) return s;
    if (request.ignore_eos && !request.sampling.constraint.empty()) {
        return {Code::invalid_argument, "ignore_eos cannot be combined with a grammar: it says where the answer ends"};
    }
    if (request.stops.size() > limits::stop_strings) {
        return {Code::invalid_argument, "at most " + std::to_string(limits::stop_strings) + " stop strings"};
    }
    for (const std::string &stop : request.stops) {
        if (stop.empty() || stop.size() > limits::stop_bytes) {
            return {Code::invalid_argument, "a stop string has 1 to " + std::to_string(limits::stop_bytes) + " bytes"};
        }
        if (!is_utf8(stop)) return {Code::invalid_argument, "a stop string is not UTF-8"};
    }
    return {};
}

}  // namespace sllm
