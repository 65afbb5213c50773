// One request inside the engine: what was asked, how far it is, and its text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/text_assembler.h"

namespace sllm {

struct Request {
    std::uint64_t number = 0;
    std::vector<std::int32_t> prompt;
    std::uint64_t max_tokens = 0;  // 0: until the context is full
    SamplingParams sampling;
    std::vector<std::string> stops;
    bool ignore_eos = false;
};

struct Session {
    Session(Request asked, double now_ms) : request(std::move(asked)), text(request.stops), submitted_ms(now_ms) {}

    // Tokens of the prompt that no batch has computed yet.
    std::uint32_t prompt_left() const { return prompt_tokens() - prompt_done; }
    std::uint32_t prompt_tokens() const { return static_cast<std::uint32_t>(request.prompt.size()); }
    bool prefilling() const { return prompt_left() > 0; }

    Request request;
    TextAssembler text;
    std::uint32_t slot = 0;
    std::uint32_t prompt_done = 0;
    std::uint32_t output_limit = 0;   // from max_tokens and what the context leaves
    std::uint32_t output_tokens = 0;
    std::int32_t last_token = 0;      // the next to be computed once the prompt is done
    double submitted_ms = 0;
    double started_ms = 0;
    double first_token_ms = 0;
    double last_token_ms = 0;
};

}  // namespace sllm
