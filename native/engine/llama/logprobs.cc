// A log-softmax in double over the whole vocabulary.
#include "engine/llama/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine/logprob_record.h"

namespace sllm::llama {

std::string logprobs_of(const float *logits, std::int32_t vocabulary, std::int32_t token, std::uint32_t alternatives,
                        const std::function<std::string(std::int32_t)> &piece) {
    const double top = static_cast<double>(*std::max_element(logits, logits + vocabulary));
    double sum = 0;
    for (std::int32_t id = 0; id < vocabulary; id++) sum += std::exp(static_cast<double>(logits[id]) - top);
    const double norm = top + std::log(sum);
    std::string out;
    const auto append = [&](std::int32_t id) {
        append_logprob(id, static_cast<double>(logits[id]) - norm, piece(id), &out);
    };
    append(token);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(vocabulary));
    std::iota(ids.begin(), ids.end(), 0);
    const auto end = ids.begin() + std::min<std::ptrdiff_t>(alternatives, vocabulary);
    // Equal ones in the order of their numbers, so that the list is the same everywhere.
    std::partial_sort(ids.begin(), end, ids.end(), [&](std::int32_t a, std::int32_t b) {
        return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    std::for_each(ids.begin(), end, append);
    return out;
}

}  // namespace sllm::llama
