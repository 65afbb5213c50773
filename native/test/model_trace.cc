// Traces through a backend, and /proc/self.
#include "test/model_trace.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "test/harness.h"

namespace test {

using sllm::BatchToken;

Trace trace_engine(sllm::llama::LlamaBackend &engine) {
    Trace trace;
    std::vector<std::int32_t> prompt;
    CHECK_OK(engine.tokenize(prompt_text, true, false, &prompt));
    CHECK_OK(engine.begin(0, {}, {}));
    std::vector<BatchToken> batch;
    for (const std::int32_t token : prompt) {
        batch.push_back({token, static_cast<std::uint32_t>(batch.size()), 0, batch.size() + 1 == prompt.size()});
    }
    auto position = static_cast<std::uint32_t>(prompt.size());
    for (int i = 0; i < continued; i++) {
        CHECK_OK(engine.decode(batch));
        const float *logits = engine.logits(batch.size() - 1);
        trace.logits.emplace_back(logits, logits + engine.facts().vocabulary_tokens);
        trace.tokens.push_back(engine.sample(0, batch.size() - 1, position));
        batch = {{trace.tokens.back(), position++, 0, true}};
    }
    engine.end(0);
    engine.cut(0, 0);
    return trace;
}

void check_bit_equal(const Trace &found, const Trace &expected) {
    CHECK_EQ(found.logits.size(), expected.logits.size());
    for (std::size_t i = 0; i < found.logits.size(); i++) {
        CHECK_EQ(found.logits[i].size(), expected.logits[i].size());
        const std::size_t bytes = found.logits[i].size() * sizeof(float);
        if (std::memcmp(found.logits[i].data(), expected.logits[i].data(), bytes) != 0) {
            throw Failed("logits differ at token " + std::to_string(i));
        }
    }
    CHECK(found.tokens == expected.tokens);
}

float largest_difference(const std::vector<float> &a, const std::vector<float> &b) {
    CHECK_EQ(a.size(), b.size());
    float largest = 0;
    for (std::size_t i = 0; i < a.size(); i++) largest = std::max(largest, std::abs(a[i] - b[i]));
    return largest;
}

Mapped mapped(const std::string &name) {
    std::ifstream smaps("/proc/self/smaps");
    Mapped total;
    bool inside = false;
    for (std::string line; std::getline(smaps, line);) {
        const std::size_t word = line.find(' ');
        if (word == std::string::npos) continue;
        if (line[word - 1] != ':') {
            inside = line.find(name) != std::string::npos && line.find(" r--s ") != std::string::npos;
        } else if (inside && (line.starts_with("Rss:") || line.starts_with("Shared_Hugetlb:") ||
                              line.starts_with("Private_Hugetlb:"))) {
            // The system's reserve of huge pages counts beside everything else.
            total.rss_kb += std::strtoull(line.c_str() + word, nullptr, 10);
        } else if (inside && line.starts_with("Private_Dirty:")) {
            total.private_kb += std::strtoull(line.c_str() + word, nullptr, 10);
        }
    }
    return total;
}

std::uint64_t anonymous_kb() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10);
    }
    return 0;
}

}  // namespace test
