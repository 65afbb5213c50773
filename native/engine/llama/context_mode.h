// How a context is opened, and what its mode promises. Ordinary: one pool of cells for all slots, the fastest kernels.
// Deterministic: what the model says of a sequence does not depend, to the bit, on what else is computed, nor on how
// the sequence was cut into steps.
#pragma once

#include <cstdint>
#include <string>

#include "engine/backend.h"
#include "engine/llama/model_skeleton.h"
#include "engine/llama_module.h"
#include "ggml-backend-impl.h"
#include "llama.h"

namespace sllm::llama {

// Threads of a context; 0 is asked for none in particular. The library's threads wait for each other by spinning at
// every operation: with as many threads as processors, any other work on the machine (gateway, worker, a second engine)
// makes each token take tens of times longer.
std::uint32_t compute_threads(std::uint32_t asked);

// A value of the model's file, at most 127 bytes of it; "" where it has none.
std::string metadata(const llama_model *model, const std::string &key);

// INVALID_ARGUMENT when the sizes do not go together, MODEL_UNSUPPORTED when the model cannot have the mode.
Status check_mode(const LlamaOptions &options, const ModelSkeleton &skeleton);

// Of options that were checked: slots, sizes, cache and mode.
BackendFacts mode_facts(const LlamaOptions &options, const ModelSkeleton &skeleton);

// How the context of such facts is opened.
llama_context_params context_params(const LlamaOptions &options, const BackendFacts &facts);

// While one lives, CPU backends that the library makes on this thread compute with its reference kernels, which add up
// in an order that does not depend on the number of rows, cells or threads.
class ReferenceKernels {
public:
    explicit ReferenceKernels(bool wanted);
    ~ReferenceKernels();
    ReferenceKernels(const ReferenceKernels &) = delete;
    ReferenceKernels &operator=(const ReferenceKernels &) = delete;

private:
    const bool wanted_;
};

}  // namespace sllm::llama
