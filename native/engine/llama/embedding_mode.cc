// Settings of the context, one batch, and the prompt of a pair.
#include "engine/llama/embedding_mode.h"

#include <algorithm>
#include <string>

#include "core/limits.h"
#include "engine/llama/context_mode.h"
#include "engine/llama/log.h"

namespace sllm::llama {

namespace {

void append_special(llama_token token, std::vector<std::int32_t> *out) {
    if (token != LLAMA_TOKEN_NULL) out->push_back(token);
}

std::string filled(std::string prompt, std::string_view query, std::string_view document) {
    // The later one first: what a text itself contains is never taken for a place to fill.
    const std::size_t at_query = prompt.find("{query}");
    const std::size_t at_document = prompt.find("{document}");
    const auto fill = [&prompt](std::size_t at, std::string_view name, std::string_view text) {
        if (at != std::string::npos) prompt.replace(at, name.size(), text);
    };
    const bool query_first = at_query < at_document;
    if (query_first) fill(at_document, "{document}", document);
    fill(at_query, "{query}", query);
    if (!query_first) fill(at_document, "{document}", document);
    return prompt;
}

}  // namespace

Status read_pooling(const llama_model *model, Pooling *out) {
    const std::string key = metadata(model, "general.architecture") + ".pooling_type";
    const std::string text = metadata(model, key);
    if (text.empty() || text == "0") {
        *out = Pooling::none;
    } else if (text.size() == 1 && text[0] >= '1' && text[0] <= '4') {
        *out = static_cast<Pooling>(text[0] - '0');
    } else {
        return {Code::model_unsupported, key + " is " + text + ", which is no known pooling"};
    }
    return {};
}

Status check_embedding_mode(const LlamaOptions &options) {
    if (!options.deterministic) return {};
    return {Code::model_unsupported, "no deterministic mode: the model makes vectors, it does not generate"};
}

BackendFacts embedding_facts(const LlamaOptions &options, const llama_model *model, Pooling pooling) {
    BackendFacts facts;
    facts.vocabulary_tokens = static_cast<std::uint32_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
    const auto trained = static_cast<std::uint32_t>(std::max(1, llama_model_n_ctx_train(model)));
    facts.context_tokens = std::min(options.context_tokens, trained);
    facts.slots = options.slots;
    // Attention may go both ways, so that a sequence cannot be cut: one call takes at least the longest.
    facts.batch_tokens = std::max(options.batch_tokens, facts.context_tokens);
    facts.embedding.pooling = pooling;
    facts.embedding.values = pooling == Pooling::rank ? llama_model_n_cls_out(model)
                                                      : static_cast<std::uint32_t>(llama_model_n_embd_out(model));
    const auto most = static_cast<std::uint32_t>(llama_max_parallel_sequences());
    facts.embedding.sequences = std::min(limits::embedding_sequences, most);
    return facts;
}

llama_context_params embedding_params(const LlamaOptions &options, const BackendFacts &facts) {
    llama_context_params params = llama_context_default_params();
    params.n_seq_max = facts.embedding.sequences;
    params.n_ctx = params.n_batch = params.n_ubatch = facts.batch_tokens;
    params.n_threads = params.n_threads_batch = static_cast<std::int32_t>(compute_threads(options.threads));
    params.type_k = params.type_v = GGML_TYPE_F16;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
    params.kv_unified = true;  // sequences of any length share the cells
    params.embeddings = true;
    params.pooling_type = LLAMA_POOLING_TYPE_UNSPECIFIED;  // the model's own
    params.no_perf = true;
    return params;
}

Status embed_batch(llama_context *context, llama_batch *batch, const BackendFacts &facts,
                   std::span<const std::span<const std::int32_t>> sequences, std::vector<std::vector<float>> *out) {
    batch->n_tokens = 0;
    for (std::size_t sequence = 0; sequence < sequences.size(); sequence++) {
        llama_pos position = 0;
        for (const std::int32_t token : sequences[sequence]) {
            const std::int32_t i = batch->n_tokens++;
            batch->token[i] = token;
            batch->pos[i] = position++;
            batch->n_seq_id[i] = 1;
            batch->seq_id[i][0] = static_cast<llama_seq_id>(sequence);
            batch->logits[i] = 1;  // pooling looks at all of them
        }
    }
    LastWords words;
    // A model without memory computes all of a sequence at once, as the encoder of one.
    llama_memory_t memory = llama_get_memory(context);
    if (memory != nullptr) llama_memory_clear(memory, false);
    const std::int32_t result = memory != nullptr ? llama_decode(context, *batch) : llama_encode(context, *batch);
    if (result != 0) {
        return {Code::engine, "libllama failed to compute (" + std::to_string(result) + "): " + words.text()};
    }
    for (std::size_t sequence = 0; sequence < sequences.size(); sequence++) {
        const float *values = llama_get_embeddings_seq(context, static_cast<llama_seq_id>(sequence));
        if (values == nullptr) return {Code::engine, "libllama has no vector of a sequence"};
        out->emplace_back(values, values + facts.embedding.values);
    }
    return {};
}

Status pair_tokens(const llama_model *model, const Backend &backend, std::string_view query,
                   std::string_view document, std::vector<std::int32_t> *out) {
    if (const char *prompt = llama_model_chat_template(model, "rerank"); prompt != nullptr) {
        return backend.tokenize(filled(prompt, query, document), false, true, out);
    }
    const llama_vocab *vocab = llama_model_get_vocab(model);
    const llama_token eos = llama_vocab_eos(vocab);
    const llama_token end = eos != LLAMA_TOKEN_NULL ? eos : llama_vocab_sep(vocab);
    std::vector<std::int32_t> question;
    std::vector<std::int32_t> answer;
    if (Status s = backend.tokenize(query, false, false, &question); !s.ok()) return s;
    if (Status s = backend.tokenize(document, false, false, &answer); !s.ok()) return s;
    out->clear();
    if (llama_vocab_get_add_bos(vocab)) append_special(llama_vocab_bos(vocab), out);
    out->insert(out->end(), question.begin(), question.end());
    if (llama_vocab_get_add_eos(vocab)) append_special(end, out);
    if (llama_vocab_get_add_sep(vocab)) append_special(llama_vocab_sep(vocab), out);
    out->insert(out->end(), answer.begin(), answer.end());
    if (llama_vocab_get_add_eos(vocab)) append_special(end, out);
    return {};
}

}  // namespace sllm::llama
