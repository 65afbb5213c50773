// A model without its weights: libllama builds structure and vocabulary over reserved, inaccessible addresses; the
// weights appear there afterwards, by mapping a host copy (no byte is copied) or, when the host copy's order is not
// the library's own, by copying tensor by tensor. They can be taken away and come again: the addresses stay, because
// graphs that the library keeps for the next step have them inside.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/status.h"
#include "engine/gguf_header.h"
#include "io/owned.h"
#include "llama.h"
#include "store/host_copy.h"

namespace sllm::llama {

struct SkeletonTensor {
    ggml_tensor *tensor;
    std::string name;
    std::uint64_t offset;  // from the start of its region
    std::size_t region;
};

class ModelSkeleton {
public:
    // header_path: a complete GGUF header. data_bytes: of the data that belongs to it; 0 takes what the file's size
    // says. NOT_FOUND, IO, CORRUPT, MODEL_UNSUPPORTED with the library's last words. [blocks]
    static Status build(const std::string &header_path, std::uint64_t data_bytes, std::unique_ptr<ModelSkeleton> *out);
    ~ModelSkeleton();
    ModelSkeleton(const ModelSkeleton &) = delete;
    ModelSkeleton &operator=(const ModelSkeleton &) = delete;

    llama_model *model() const { return model_; }

    // Tensors with memory of their own, in layout order.
    const std::vector<SkeletonTensor> &tensors() const { return tensors_; }

    // Whether every tensor lies in the library's buffer where it lies in the data, so that it can be mapped.
    bool in_place() const;

    // Waits for a host copy and brings its weights in; at once when they lie there already. The model computes only
    // after this. After a failure it has no weights. [blocks]
    Status attach(HostCopyView weights);
    // Takes the weights away; their addresses stay reserved.
    Status detach();

private:
    ModelSkeleton() = default;
    Status load(const std::string &path, std::uint64_t data_bytes);
    Status collect_tensors();
    Status bring_in(const HostCopyView &weights);
    Status map_in_place(const HostCopyView &weights);
    Status copy_tensors(const HostCopyView &weights);

    GgufHeader header_;
    std::uint64_t data_bytes_ = 0;
    std::vector<Mapping> regions_;  // reserved addresses, one per buffer the library asked for
    std::vector<SkeletonTensor> tensors_;
    std::optional<HostCopyView> attached_;  // whose weights are there, all of them
    llama_model *model_ = nullptr;
};

}  // namespace sllm::llama
