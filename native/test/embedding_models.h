// Small models that make vectors instead of text, written as GGUF files.
#pragma once

#include <cstdint>
#include <string>

namespace test {

// The sample model, which looks back only, with a pooling: an llama_pooling_type. Returns its path.
std::string pooled_sample(const std::string &folder, int pooling);

// An encoder of two layers with random weights and the sample model's vocabulary: 64 values, 128 positions. With the
// pooling RANK it has a head that gives one score. Returns its path.
std::string random_encoder(const std::string &folder, int pooling);

}  // namespace test
