// Conversion with the engine library's own GGUF functions, so that the tests need no other part of the project.
#include "test/checkpoint_fixture.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/digest.h"
#include "core/limits.h"
#include "engine/llama/layout_plan.h"
#include "engine/llama/libraries.h"
#include "ggml.h"
#include "gguf.h"
#include "llama.h"
#include "test/open_store.h"
#include "test/temp_folder.h"

namespace test {

namespace {

void require(bool condition, const std::string &what) {
    if (!condition) throw std::runtime_error(what);
}

struct Source {
    explicit Source(const std::string &path) : bytes(read_file(path)) {
        gguf = gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = &tensors});
        require(gguf != nullptr, path + " is no GGUF file");
    }
    ~Source() {
        gguf_free(gguf);
        ggml_free(tensors);
    }
    Source(const Source &) = delete;
    Source &operator=(const Source &) = delete;

    std::vector<std::uint8_t> bytes;
    ggml_context *tensors = nullptr;
    gguf_context *gguf = nullptr;
};

std::vector<std::string> tensor_order(const std::string &gguf_path, const gguf_context *file, Order order) {
    if (order == Order::file) {
        std::vector<std::string> names;
        for (std::int64_t i = 0; i < gguf_get_n_tensors(file); i++) names.emplace_back(gguf_get_tensor_name(file, i));
        return names;
    }
    std::string json;
    const sllm::Status planned = sllm::llama::plan_layout(engine_libraries(), gguf_path, &json);
    require(planned.ok(), "layout plan: " + planned.message());
    auto names = nlohmann::json::parse(json)["tensors"].get<std::vector<std::string>>();
    if (order == Order::reversed) std::reverse(names.begin(), names.end());
    return names;
}

// An empty GGUF context with the metadata of another and alignment 128, which the library takes only from a file.
gguf_context *aligned_copy(const gguf_context *source, const std::string &scratch) {
    gguf_context *empty = gguf_init_empty();
    gguf_set_kv(empty, source);
    gguf_set_val_u32(empty, "general.alignment", static_cast<std::uint32_t>(sllm::limits::tensor_align_bytes));
    require(gguf_write_to_file(empty, scratch.c_str(), true), "cannot write " + scratch);
    gguf_free(empty);
    gguf_context *aligned = gguf_init_from_file(scratch.c_str(), {.no_alloc = true, .ctx = nullptr});
    require(aligned != nullptr, "cannot read " + scratch);
    return aligned;
}

}  // namespace

Checkpoint make_checkpoint(const std::string &gguf_path, const std::string &folder, Order order,
                           std::uint64_t chunk_bytes) {
    const Source source(gguf_path);
    Checkpoint made;
    made.chunk_bytes = chunk_bytes;
    made.header_path = folder + "/header.gguf";
    made.weights_path = folder + "/weights.bin";
    gguf_context *header = aligned_copy(source.gguf, folder + "/scratch.gguf");
    std::vector<std::uint8_t> weights;
    for (const std::string &name : tensor_order(gguf_path, source.gguf, order)) {
        const ggml_tensor *tensor = ggml_get_tensor(source.tensors, name.c_str());
        gguf_add_tensor(header, tensor);
        const std::size_t at = gguf_get_tensor_offset(header, gguf_find_tensor(header, name.c_str()));
        const std::size_t from = gguf_get_data_offset(source.gguf) +
                                 gguf_get_tensor_offset(source.gguf, gguf_find_tensor(source.gguf, name.c_str()));
        weights.resize(at + ggml_nbytes(tensor));
        std::copy_n(source.bytes.begin() + static_cast<std::ptrdiff_t>(from), ggml_nbytes(tensor),
                    weights.begin() + static_cast<std::ptrdiff_t>(at));
    }
    const std::uint64_t align = sllm::limits::file_align_bytes;
    weights.resize((weights.size() + align - 1) / align * align);
    made.weights_bytes = weights.size();
    require(gguf_write_to_file(header, made.header_path.c_str(), true), "cannot write the header");
    std::filesystem::resize_file(made.header_path, gguf_get_meta_size(header) + weights.size());
    gguf_free(header);
    write_file(made.weights_path, weights);
    for (std::uint64_t at = 0; at < weights.size(); at += made.chunk_bytes) {
        made.digests.push_back(sllm::xxh3(weights.data() + at, std::min(made.chunk_bytes, weights.size() - at)));
    }
    return made;
}

HostCopied load_checkpoint(const Checkpoint &checkpoint) {
    HostCopied copied;
    copied.store = open_store(2);
    const sllm::LoadRequest request{checkpoint.weights_path, checkpoint.weights_bytes, checkpoint.chunk_bytes,
                                    checkpoint.digests};
    const sllm::Status begun = copied.store->load(request, &copied.load);
    require(begun.ok(), "load: " + begun.message());
    sllm::LoadStatus status;
    while (status.state == 0) {
        copied.store->wait(100'000);
        require(copied.store->status(copied.load, &status).ok(), "the load is unknown");
    }
    require(status.state == 1, "load: " + status.message);
    copied.path = "/proc/self/fd/" + std::to_string(status.fd);
    return copied;
}

sllm::LlamaOptions engine_options(const Checkpoint &checkpoint) {
    sllm::LlamaOptions options;
    options.library_dir = engine_libraries();
    options.header_path = checkpoint.header_path;
    options.weights_bytes = checkpoint.weights_bytes;
    options.context_tokens = 256;
    options.slots = 2;
    options.batch_tokens = 64;
    options.threads = 1;
    return options;
}

std::unique_ptr<sllm::llama::LlamaBackend> open_backend(const sllm::LlamaOptions &options,
                                                        const std::string &weights_path) {
    std::unique_ptr<sllm::Backend> backend;
    const sllm::Status built = sllm::llama::LlamaBackend::build(options, &backend);
    require(built.ok(), "build: " + built.message());
    const sllm::Status attached = backend->attach(weights_path);
    require(attached.ok(), "attach: " + attached.message());
    return std::unique_ptr<sllm::llama::LlamaBackend>(static_cast<sllm::llama::LlamaBackend *>(backend.release()));
}

std::string sample_model() { return SLLM_TEST_MODEL; }

std::string engine_libraries() { return SLLM_TEST_LIBRARIES; }

std::string quantize(const std::string &gguf_path, const std::string &folder, int ftype) {
    const sllm::Status prepared = sllm::llama::prepare_libraries(engine_libraries());
    require(prepared.ok(), prepared.message());
    const std::string path = folder + "/quantized.gguf";
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = static_cast<llama_ftype>(ftype);
    params.nthread = 2;
    require(llama_model_quantize(gguf_path.c_str(), path.c_str(), &params) == 0, "quantisation failed");
    return path;
}

}  // namespace test
