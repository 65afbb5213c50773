// What a model computes for one prompt, to compare engines bit by bit; and the memory that its weights take.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/llama/llama_backend.h"

namespace test {

inline constexpr const char *prompt_text = "ROMEO:\nWhat light through yonder window breaks? It is the";
inline constexpr int continued = 24;

// Logits after the prompt and after each token of a greedy continuation, and the continuation.
struct Trace {
    std::vector<std::vector<float>> logits;
    std::vector<std::int32_t> tokens;
};

// In slot 0, which must be free.
Trace trace_engine(sllm::llama::LlamaBackend &engine);

// Throws Failed where they differ first.
void check_bit_equal(const Trace &found, const Trace &expected);

// Of two vectors of logits of the same vocabulary.
float largest_difference(const std::vector<float> &a, const std::vector<float> &b);

// Resident and private memory of this process in read-only mappings of a name.
struct Mapped {
    std::uint64_t rss_kb = 0;
    std::uint64_t private_kb = 0;
};
Mapped mapped(const std::string &name);

// This process's own memory, in use.
std::uint64_t anonymous_kb();

}  // namespace test
