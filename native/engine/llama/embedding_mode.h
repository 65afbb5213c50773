// How a context is opened that turns sequences into vectors, and how it does. The model decides whether its engine does
// that: its file names a pooling.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "engine/backend.h"
#include "engine/llama_module.h"
#include "llama.h"

namespace sllm::llama {

// What the model's file says; none where it says nothing. MODEL_UNSUPPORTED for a pooling this version does not know.
Status read_pooling(const llama_model *model, Pooling *out);

// INVALID_ARGUMENT for a mode that goes with generating only.
Status check_embedding_mode(const LlamaOptions &options);

// A sequence's context is at most what the model was trained for: it may know no positions beyond.
BackendFacts embedding_facts(const LlamaOptions &options, const llama_model *model, Pooling pooling);

// How the context of such facts is opened.
llama_context_params embedding_params(const LlamaOptions &options, const BackendFacts &facts);

// The vectors of sequences, computed in one call.
Status embed_batch(llama_context *context, llama_batch *batch, const BackendFacts &facts,
                   std::span<const std::span<const std::int32_t>> sequences, std::vector<std::vector<float>> *out);

// A query and a document in the model's own template for that, or between its separators.
Status pair_tokens(const llama_model *model, const Backend &backend, std::string_view query,
                   std::string_view document, std::vector<std::int32_t> *out);

}  // namespace sllm::llama
