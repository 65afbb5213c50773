// A model without its weights: libllama builds structure and vocabulary over reserved, inaccessible addresses; the
// weights appear there afterwards, by mapping a host copy (no byte is copied) or, when the host copy's order is not
// the library's own, by copying tensor by tensor. They can be taken away and come again: the addresses stay, because
// graphs that the library keeps for the next step have them inside. What lies on devices has real memory there from the
// beginning and is filled from the host copy.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "engine/device_split.h"
#include "engine/gguf_header.h"
#include "engine/llama/device_upload.h"
#include "io/owned.h"
#include "llama.h"
#include "store/host_copy.h"

namespace sllm::llama {

// What a model is built from and where its weights go.
struct SkeletonWish {
    std::string header_path = {};               // a complete GGUF header
    std::uint64_t data_bytes = 0;               // of the data that belongs to it; 0: what the file's size says
    std::span<const DeviceShare> devices = {};  // where the layers go; none: the CPU
    // On the CPU: matrices in the layout that the library computes on fastest, in memory of the engine's own.
    bool repacked = false;
};

struct SkeletonTensor {
    ggml_tensor *tensor;
    std::string name;
    std::uint64_t offset;  // from the start of its region
    std::size_t region;
};

// Addresses that stand for a buffer of the library: in whole huge pages, of which it asked for `bytes`.
struct WeightRegion {
    Mapping memory;
    std::uint64_t bytes;
};

// Maps a whole file that begins with a GGUF header. CORRUPT when it is empty.
Status map_header(const std::string &path, Mapping *out);

// A tensor whose layout the library changes when it is set, as a whole.
struct RepackedTensor {
    ggml_tensor *tensor;
    std::uint64_t from;  // in the data
};

class ModelSkeleton {
public:
    // NOT_FOUND, IO, CORRUPT, MODEL_UNSUPPORTED with the library's last words. [blocks]
    static Status build(const SkeletonWish &wish, std::unique_ptr<ModelSkeleton> *out);
    ~ModelSkeleton();
    ModelSkeleton(const ModelSkeleton &) = delete;
    ModelSkeleton &operator=(const ModelSkeleton &) = delete;

    llama_model *model() const { return model_; }

    // Tensors with memory of their own on the CPU side, in layout order, without the repacked ones.
    const std::vector<SkeletonTensor> &tensors() const { return tensors_; }
    // Tensors in a layout of the library's own; none unless that was wished for.
    const std::vector<RepackedTensor> &repacked() const { return repacked_; }

    // Whether every tensor lies in the library's buffer where it lies in the data, so that it can be mapped. Never when
    // repacked, nor with devices: what then stays on the CPU side is small, and copying it lets the host copy go once
    // all has arrived.
    bool in_place() const;

    // What each device gets; none on a CPU.
    const std::vector<DevicePart> &device_parts() const { return parts_; }
    // Of the last attach.
    const UploadFacts &upload_facts() const { return uploaded_; }

    // Waits for a host copy and brings its weights in; at once when they lie there already. The model computes only
    // after this. After a failure it has no weights. [blocks]
    Status attach(HostCopyView weights);
    // Takes the weights of the CPU side away, repacked ones too; their addresses stay reserved. A device keeps its
    // memory.
    Status detach();

private:
    ModelSkeleton() = default;
    Status load(const SkeletonWish &wish);
    Status build_model(std::FILE *stream, const std::function<void()> &withhold, const SkeletonWish &wish);
    Status collect_tensors();
    Status collect_on_cpu(const std::string &name, ggml_tensor *tensor);
    Status collect_on_device(const std::string &name, ggml_tensor *tensor);
    void copy_arrived(const std::uint8_t *source, std::uint64_t begin, std::uint64_t end);
    // Sets the repacked tensors whose last byte is in the range. arrived: bytes of each before, and then after it.
    void repack_arrived(const std::uint8_t *source, std::uint64_t begin, std::uint64_t end,
                        std::vector<std::uint64_t> *arrived);
    Status bring_in(const HostCopyView &weights);
    Status bring_to_cpu(const HostCopyView &weights, SharedProgress &progress);
    Status map_in_place(const HostCopyView &weights);
    Status copy_tensors(const HostCopyView &weights, SharedProgress &progress);
    // Gives the memory of the repacked tensors back; an attach fills it again.
    void drop_repacked();

    GgufHeader header_;
    std::uint64_t data_bytes_ = 0;
    std::vector<WeightRegion> regions_;  // reserved addresses, one per buffer the library asked for
    std::vector<SkeletonTensor> tensors_;
    std::vector<RepackedTensor> repacked_;
    std::vector<DevicePart> parts_;
    UploadFacts uploaded_;
    std::optional<HostCopyView> attached_;  // whose weights are there, all of them
    llama_model *model_ = nullptr;
};

}  // namespace sllm::llama
