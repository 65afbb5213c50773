// The backend that computes with libllama.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "engine/backend.h"
#include "engine/llama/adapters.h"
#include "engine/llama/chat_renderer.h"
#include "engine/llama/context_memory.h"
#include "engine/llama/kv_rows.h"
#include "engine/llama/model_skeleton.h"
#include "engine/llama/sampler.h"
#include "engine/llama_module.h"
#include "llama.h"

namespace sllm::llama {

class LlamaBackend : public Backend {
public:
    // See sllm_engine_build. [blocks]
    static Status build(const LlamaOptions &options, std::unique_ptr<Backend> *out);
    ~LlamaBackend() override;

    const BackendFacts &facts() const override { return facts_; }
    Status tokenize(std::string_view text, bool add_special, bool parse_special,
                    std::vector<std::int32_t> *out) const override;
    Status tokenize_pair(std::string_view query, std::string_view document,
                         std::vector<std::int32_t> *out) const override;
    Status render_chat(std::string_view messages, std::string *out) const override;
    Status open_chat(std::string_view request, std::unique_ptr<Chat> *out) const override;
    void interrupt() override { pulse_.interrupted = true; }
    void abort_decodes(bool on) override { pulse_.aborting = on; }
    std::uint64_t progress() const override { return pulse_.operations.load(std::memory_order_relaxed); }

    Status attach(const std::string &weights_path) override;
    Status park(bool keep_weights) override;
    std::vector<DeviceMemoryFacts> device_memory() const override;
    UploadReport upload_report() const override;

    Status add_adapter(const AdapterFiles &files) override;
    void remove_adapter(std::uint32_t adapter) override { adapters_.remove(context_.get(), adapter); }
    Status use_adapter(std::uint32_t adapter) override { return adapters_.use(context_.get(), adapter); }

    Status embed(std::span<const std::span<const std::int32_t>> sequences,
                 std::vector<std::vector<float>> *out) override;

    Status begin(std::uint32_t slot, const SamplingParams &sampling, const TokenHistory &history) override;
    void end(std::uint32_t slot) override;
    void cut(std::uint32_t slot, std::uint32_t length) override;
    void share(std::uint32_t from, std::uint32_t to, std::uint32_t length) override;
    Status read_kv(std::uint32_t slot, std::uint32_t from, std::uint32_t to, std::vector<std::uint8_t> *out) override;
    Status make_kv(std::uint32_t slot, std::uint32_t tokens) override;
    Status write_kv(std::uint32_t slot, std::uint32_t from, std::span<const std::uint8_t> rows) override;
    Status decode(std::span<const BatchToken> batch) override;
    std::int32_t sample(std::uint32_t slot, std::size_t index, std::uint32_t position) override;
    Status accept(std::uint32_t slot, std::int32_t token) override;
    std::string logprobs(std::size_t index, std::int32_t token, std::uint32_t alternatives) const override;
    bool ends_generation(std::int32_t token) const override;
    void append_piece(std::uint32_t slot, std::int32_t token, std::string *out) const override;

    // Whether the weights are the host copy's own pages.
    bool in_place() const { return skeleton_->in_place(); }
    // Logits of batch[index] of the last decode. Compute thread only.
    const float *logits(std::size_t index) const;

private:
    LlamaBackend() = default;
    Status choose_mode(const LlamaOptions &options, llama_context_params *params);
    Status open_context(const LlamaOptions &options);
    // What facts() say of the KV cache's rows.
    void note_kv(const LlamaOptions &options);
    // A token's bytes; special: also those of a control token.
    std::string piece(std::int32_t token, bool special) const;

    struct FreeContext {
        void operator()(llama_context *context) const { llama_free(context); }
    };

    BackendFacts facts_;
    std::uint64_t weights_bytes_ = 0;
    std::unique_ptr<ModelSkeleton> skeleton_;
    const llama_vocab *vocab_ = nullptr;
    ContextMemory context_memory_;
    Adapters adapters_;  // gone after the context, before the model
    std::unique_ptr<llama_context, FreeContext> context_;
    std::unique_ptr<ChatRenderer> chat_;
    llama_batch batch_{};
    std::vector<std::unique_ptr<Sampler>> samplers_;  // per slot
    std::vector<llama_token_data> candidates_;
    std::vector<KvRows> incoming_;  // per slot, of sequences that were made room for
    // What libllama asks and tells between two operations of a decode.
    struct Pulse {
        std::atomic<bool> interrupted{false};
        std::atomic<bool> aborting{false};
        std::atomic<std::uint64_t> operations{0};
    };
    Pulse pulse_;
};

}  // namespace sllm::llama
