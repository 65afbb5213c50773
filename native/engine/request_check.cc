// What makes a request impossible, whatever the engine does otherwise.
#include "engine/request_check.h"

#include <string>

#include "core/limits.h"
#include "core/utf8.h"

namespace sllm {

namespace {

Status check_embedding(const Request &request, const BackendFacts &facts) {
    if (request.prompt.size() > facts.context_tokens) {
        return {Code::context_overflow, "the input has " + std::to_string(request.prompt.size()) +
                                            " tokens, the context " + std::to_string(facts.context_tokens)};
    }
    if (request.held) return {Code::invalid_argument, "an engine that embeds holds no requests"};
    if (request.dimensions > 0 && facts.embedding.pooling == Pooling::rank) {
        return {Code::invalid_argument, "the model ranks: its scores have no dimensions"};
    }
    if (request.dimensions > facts.embedding.values) {
        return {Code::invalid_argument, "dimensions must be 1 to " + std::to_string(facts.embedding.values)};
    }
    return check_tokens(request.prompt, facts);
}

}  // namespace

Status check_tokens(const std::vector<std::int32_t> &tokens, const BackendFacts &facts) {
    for (const std::int32_t token : tokens) {
        if (token >= 0 && static_cast<std::uint32_t>(token) < facts.vocabulary_tokens) continue;
        return {Code::invalid_argument, "token " + std::to_string(token) + " is not in the vocabulary"};
    }
    return {};
}

Status check_request(const Request &request, const BackendFacts &facts) {
    if (request.prompt.empty()) return {Code::invalid_argument, "the prompt has no tokens"};
    if (request.adapter == UINT32_MAX) return {Code::invalid_argument, "that is no number of an adapter"};
    if (facts.embedding.pooling != Pooling::none) return check_embedding(request, facts);
    if (request.dimensions > 0) return {Code::invalid_argument, "dimensions are for engines that embed"};
    if (request.prompt.size() >= facts.context_tokens) {
        return {Code::context_overflow, "the prompt has " + std::to_string(request.prompt.size()) +
                                            " tokens, the context " + std::to_string(facts.context_tokens)};
    }
    if (request.prompt.size() + request.resume.size() > facts.context_tokens) {
        return {Code::context_overflow, "prompt and resumed output have " +
                                            std::to_string(request.prompt.size() + request.resume.size()) +
                                            " tokens, the context " + std::to_string(facts.context_tokens)};
    }
    if (Status s = check_tokens(request.prompt, facts); !s.ok()) return s;
    if (Status s = check_tokens(request.resume, facts); !s.ok()) return s;
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
