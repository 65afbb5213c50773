// The engine library's log: warnings and errors go to stderr, the last errors are kept to explain a refusal.
#pragma once

#include <string>

namespace sllm::llama {

// Sends the library's log here. Once per process.
void install_log();

// Collects the errors this thread's calls into the library log during its lifetime. One per thread at a time.
class LastWords {
public:
    LastWords();
    ~LastWords();
    LastWords(const LastWords &) = delete;
    LastWords &operator=(const LastWords &) = delete;

    // The last lines, joined by "; ", or "no reason was given".
    std::string text() const;
};

}  // namespace sllm::llama
