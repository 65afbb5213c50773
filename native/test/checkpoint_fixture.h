// Makes the two files of a checkpoint, header.gguf and weights.bin, from a GGUF file, and loads them as a worker does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/llama/llama_backend.h"
#include "engine/llama_module.h"
#include "store/store.h"

namespace test {

// How weights.bin is laid out.
enum class Order {
    engine,    // as the engine lays it out: mapped in place
    reversed,  // another order: the engine has to copy
    file,      // as in the GGUF file, which need not be a model
};

struct Checkpoint {
    std::string header_path;
    std::string weights_path;
    std::uint64_t weights_bytes = 0;
    std::uint64_t chunk_bytes = 16 << 20;
    std::vector<std::uint64_t> digests;
};

// Throws on failure. Writes into the folder.
Checkpoint make_checkpoint(const std::string &gguf_path, const std::string &folder, Order order,
                           std::uint64_t chunk_bytes = 1 << 20);

// A store with the checkpoint in a ready host copy, and the path an engine opens it by.
struct HostCopied {
    std::unique_ptr<sllm::Store> store;
    std::uint64_t load = 0;
    std::string path;
};
HostCopied load_checkpoint(const Checkpoint &checkpoint);

// Options of a small engine on a checkpoint: 2 slots of 256 tokens, batches of 64, one thread, so that its speed does
// not depend on what else the machine does.
sllm::LlamaOptions engine_options(const Checkpoint &checkpoint);

// A backend with the weights of a host copy. Throws on failure.
std::unique_ptr<sllm::llama::LlamaBackend> open_backend(const sllm::LlamaOptions &options,
                                                        const std::string &weights_path);

// The path of the sample model, and of the engine libraries.
std::string sample_model();
std::string engine_libraries();

// A copy of a GGUF file in another type, made by the engine library; ftype is an llama_ftype. Returns its path.
std::string quantize(const std::string &gguf_path, const std::string &folder, int ftype);

}  // namespace test
