// Which devices a model runs on and how its layers are shared out among them. The split is a function of the header and
// the wished shares alone, never of what happens to be free: the same model always lies in the same way.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "engine/gguf_header.h"

namespace sllm {

struct DeviceShare {
    std::string name;  // as the engine library calls it, e.g. CUDA0
    double share = 1;  // of the bytes, in proportion to the others'
};

// Reads "CUDA0", "CUDA0,CUDA1" or, with shares, "CUDA0=24,CUDA1=8"; empty means the CPU and gives none.
// INVALID_ARGUMENT.
Status parse_devices(std::string_view text, std::vector<DeviceShare> *out);

// Bytes of weights of each layer as the engine library counts them: the repeating layers in order, then the output.
// What belongs to the input is in none, as it stays on the CPU side. Sizes are distances to the next tensor.
std::vector<std::uint64_t> layer_bytes(const GgufHeader &header, std::uint64_t data_bytes);

// How many layers each device takes, in order: each boundary is the layer border nearest to where the shares put it.
std::vector<std::uint32_t> split_layers(std::span<const std::uint64_t> layers, std::span<const DeviceShare> devices);

}  // namespace sllm
