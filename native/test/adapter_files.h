// LoRA adapters with random weights for the sample model, as GGUF files and as checkpoints.
#pragma once

#include <cstdint>
#include <string>

#include "test/checkpoint_fixture.h"

namespace test {

struct AdapterWish {
    std::uint32_t seed = 1;
    std::string architecture = "llama";
    std::int64_t width = 256;  // of the model
    std::int64_t rank = 4;
    int layers = 1;  // the first ones
};

// Writes an adapter of these layers' queries and outputs. Returns its path.
std::string random_adapter(const std::string &folder, const AdapterWish &wish = {});

// The rank at which such an adapter of so many layers has about so many bytes.
std::int64_t adapter_rank(std::uint64_t bytes, int layers = 1);

}  // namespace test
