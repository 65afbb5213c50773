// Reading adapters from memory, and changing between them.
#include "engine/llama/adapters.h"

#include <sys/mman.h>

#include <optional>
#include <string>
#include <utility>

#include "engine/gguf_header.h"
#include "engine/llama/log.h"
#include "engine/llama/memory_file.h"
#include "engine/llama/model_skeleton.h"
#include "engine/llama/tensor_placing.h"
#include "store/host_copy.h"

namespace sllm::llama {

namespace {

constexpr std::uint64_t page_bytes = 4096;

// Maps the whole host copy and waits until all of it is there. populate: page tables are filled meanwhile; the first
// request would pay for it otherwise.
Status map_weights(const AdapterFiles &files, bool populate, Mapping *out) {
    HostCopyView copy;
    Env &env = Env::posix();
    if (Status s = HostCopyView::open(env, files.weights_path, files.weights_bytes, &copy); !s.ok()) return s;
    if (copy.streamed()) return {Code::wrong_state, "the host copy of an adapter must be whole"};
    if (Status s = copy.map(out); !s.ok()) return s;
    return copy.wait_ready([&](std::uint64_t begin, std::uint64_t end) {
        begin = begin / page_bytes * page_bytes;
        if (populate) env.advise(out->data() + begin, end - begin, MADV_POPULATE_READ);
    });
}

}  // namespace

Status Adapters::add(llama_model *model, const AdapterFiles &files, bool in_place) {
    Mapping file;
    if (Status s = map_header(files.header_path, &file); !s.ok()) return s;
    GgufHeader header;
    if (Status s = parse_gguf_header({file.data(), file.bytes()}, &header); !s.ok()) {
        return {s.code(), files.header_path + ": " + s.message()};
    }
    Mapping weights;
    if (Status s = map_weights(files, in_place, &weights); !s.ok()) return s;
    const MemoryFile stream({file.data(), header.data_offset}, {weights.data(), weights.bytes()}, in_place);
    if (stream.file() == nullptr) return {Code::out_of_memory, "a stream over the adapter cannot be made"};
    const std::lock_guard lock(mutex_);
    LastWords words;
    Adapter adapter;
    {
        std::optional<TensorPlacing> placing;
        if (in_place) placing.emplace(header, std::span(weights.data(), weights.bytes()));
        adapter.weights.reset(llama_adapter_lora_init_from_file_ptr(model, stream.file()));
    }
    if (!adapter.weights) return {Code::model_unsupported, "libllama refuses the adapter: " + words.text()};
    if (in_place) adapter.memory = std::move(weights);
    if (files.scale != 0) adapter.scale = static_cast<float>(files.scale);
    adapters_.insert_or_assign(files.adapter, std::move(adapter));
    return {};
}

Status Adapters::use(llama_context *context, std::uint32_t adapter) {
    if (adapter == used_) return {};
    const std::lock_guard lock(mutex_);
    const auto found = adapters_.find(adapter);
    llama_adapter_lora *weights = found == adapters_.end() ? nullptr : found->second.weights.get();
    float scale = found == adapters_.end() ? 0 : found->second.scale;
    if (llama_set_adapters_lora(context, &weights, weights == nullptr ? 0 : 1, &scale) != 0) {
        return {Code::engine, "libllama does not take the adapter"};
    }
    used_ = adapter;
    changed_ = true;
    return {};
}

void Adapters::remove(llama_context *context, std::uint32_t adapter) {
    // The context must not know it any more when it goes.
    if (adapter == used_) static_cast<void>(use(context, 0));
    const std::lock_guard lock(mutex_);
    adapters_.erase(adapter);
}

void Adapters::clear(llama_context *context) {
    static_cast<void>(use(context, 0));
    const std::lock_guard lock(mutex_);
    adapters_.clear();
}

std::unique_lock<std::mutex> Adapters::hold_after_change() {
    if (!std::exchange(changed_, false)) return {};
    return std::unique_lock(mutex_);
}

}  // namespace sllm::llama
