// One request inside the engine: what was asked, how far it is, and its text.
#pragma once

#include <cstddef>
#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/text_assembler.h"

namespace sllm {

struct Request {
    std::uint64_t number = 0;
    std::vector<std::int32_t> prompt;
    std::vector<std::int32_t> resume;  // output tokens that were generated before, elsewhere
    std::uint64_t max_tokens = 0;      // resumed ones included; 0: until the context is full
    SamplingParams sampling;
    std::vector<std::string> stops;
    bool ignore_eos = false;
    std::uint32_t adapter = 0;     // 0: the bare model
    bool held = false;             // computes what it has and draws nothing until it is let go
    bool awaits_kv = false;        // held, and the rows of its first tokens come from elsewhere
    std::uint32_t dimensions = 0;  // of the vector, where the engine embeds; 0: all
};

struct Session {
    Session(Request asked, double now_ms)
        : request(std::move(asked)), text(request.stops), held(request.held),
          awaits_kv(request.held && request.awaits_kv), submitted_ms(now_ms) {
        sequence.reserve(request.prompt.size() + request.resume.size());
        sequence.insert(sequence.end(), request.prompt.begin(), request.prompt.end());
        sequence.insert(sequence.end(), request.resume.begin(), request.resume.end());
    }

    std::uint32_t prompt_tokens() const { return static_cast<std::uint32_t>(request.prompt.size()); }
    std::uint32_t output_tokens() const { return static_cast<std::uint32_t>(sequence.size()) - prompt_tokens(); }
    std::uint32_t cached_tokens() const { return std::min(found_tokens, prompt_tokens()); }
    TokenHistory history() const {
        const std::span<const std::int32_t> all(sequence);
        return {all.first(prompt_tokens()), all.subspan(prompt_tokens())};
    }

    Request request;
    TextAssembler text;
    std::vector<std::int32_t> sequence;  // the prompt and all output so far
    bool held = false;                   // it draws no tokens until it is let go
    bool awaits_kv = false;              // nothing is computed before they are there
    std::uint32_t kv_cells = 0;          // ... for so many the cache has room
    std::uint32_t kv_loaded = 0;         // ... and so many are there
    bool hurries = false;                // let go, and its reader still waits for its first token since
    std::optional<std::uint32_t> told_held;  // output tokens that the last HELD event has told of
    bool started = false;                // it has had a slot
    bool announced = false;              // its STARTED event was emitted
    std::size_t replayed = 0;            // tokens of resumed output whose text went into `resumed_text`
    std::string resumed_text;            // as far as it is certain; until the STARTED event takes it
    std::uint32_t slot = 0;              // while it runs
    std::uint32_t found_tokens = 0;      // of the sequence at its start, reused from the cache
    std::uint32_t output_limit = 0;      // from max_tokens and what the context leaves
    double submitted_ms = 0;
    double started_ms = 0;
    double first_token_ms = 0;
    double last_token_ms = 0;
};

}  // namespace sllm
