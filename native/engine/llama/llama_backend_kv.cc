// The KV cache's rows, for sequences that move from engine to engine.
#include "engine/llama/libraries.h"
#include "engine/llama/llama_backend.h"

namespace sllm::llama {

void LlamaBackend::note_kv(const LlamaOptions &options) {
    // What lies on devices is not in memory of ours, and what cannot be cut back is no row for every token.
    if (!facts_.kv.cuttable || !options.devices.empty()) return;
    std::uint64_t bytes = 0;
    for (const KvTensor &one : context_memory_.kv()) bytes += one.row_bytes;
    if (bytes == 0) return;
    facts_.kv_token_bytes = bytes;
    const LibraryVersions versions = loaded_versions();
    facts_.kv_fingerprint = "llama " + versions.llama + ", ggml " + versions.ggml_commit + ", " + loaded_build() +
                            (options.deterministic ? ", deterministic" : "") + (options.repacked ? ", repacked" : "") +
                            ", kv f16, " + std::to_string(context_memory_.kv().size()) + " tensors, " +
                            std::to_string(bytes) + " bytes a token";
}

Status LlamaBackend::read_kv(std::uint32_t slot, std::uint32_t from, std::uint32_t to,
                             std::vector<std::uint8_t> *out) {
    KvRows rows;
    if (Status s = KvRows::find(context_.get(), static_cast<llama_seq_id>(slot), to, &rows); !s.ok()) return s;
    out->resize((to - from) * facts_.kv_token_bytes);
    rows.read(from, to, out->data());
    return {};
}

Status LlamaBackend::make_kv(std::uint32_t slot, std::uint32_t tokens) {
    return KvRows::make(context_.get(), context_memory_.kv(), static_cast<llama_seq_id>(slot), tokens,
                        &incoming_[slot]);
}

Status LlamaBackend::write_kv(std::uint32_t slot, std::uint32_t from, std::span<const std::uint8_t> rows) {
    const std::uint64_t tokens = rows.size() / facts_.kv_token_bytes;
    if (tokens * facts_.kv_token_bytes != rows.size() || from + tokens > incoming_[slot].tokens()) {
        return {Code::invalid_argument, "these are no rows of the tokens that there is room for"};
    }
    incoming_[slot].write(from, from + static_cast<std::uint32_t>(tokens), rows.data());
    return {};
}

}  // namespace sllm::llama
