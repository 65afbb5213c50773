// Creation, batches and text of the libllama backend.
#include "engine/llama/llama_backend.h"

#include <algorithm>
#include <climits>
#include <map>

#include "engine/llama/buffer_hook.h"
#include "engine/llama/context_mode.h"
#include "engine/llama/embedding_mode.h"
#include "engine/llama/libraries.h"
#include "engine/llama/log.h"
#include "engine/llama/logprobs.h"

// Exported by libllama, declared in its src/llama-ext.h, which is no part of its public headers.
struct llama_memory_breakdown_data {
    std::size_t model = 0;
    std::size_t context = 0;
    std::size_t compute = 0;
};
using llama_memory_breakdown = std::map<ggml_backend_buffer_type_t, llama_memory_breakdown_data>;
llama_memory_breakdown llama_get_memory_breakdown(const llama_context *context);

namespace sllm::llama {

namespace {

Status check_kind(const llama_model *model) {
    if (llama_model_has_encoder(model) || !llama_model_has_decoder(model) || llama_model_is_diffusion(model)) {
        return {Code::model_unsupported, "the model does not generate text token by token"};
    }
    const llama_vocab *vocab = llama_model_get_vocab(model);
    if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE || llama_vocab_n_tokens(vocab) <= 0) {
        return {Code::model_unsupported, "the model has no vocabulary"};
    }
    return {};
}

}  // namespace

Status LlamaBackend::build(const LlamaOptions &options, std::unique_ptr<Backend> *out) {
    if (Status s = prepare_libraries(options.library_dir); !s.ok()) return s;
    Env &env = Env::posix();
    std::unique_ptr<LlamaBackend> backend(new LlamaBackend);
    const double started = env.now_ms();
    const SkeletonWish wish{options.header_path, options.weights_bytes, options.devices, options.repacked};
    if (Status s = ModelSkeleton::build(wish, &backend->skeleton_); !s.ok()) return s;
    if (Status s = check_kind(backend->skeleton_->model()); !s.ok()) return s;
    if (Status s = backend->open_context(options); !s.ok()) return s;
    backend->facts_.model_build_ms = env.now_ms() - started;
    backend->weights_bytes_ = options.weights_bytes;
    *out = std::move(backend);
    return {};
}

LlamaBackend::~LlamaBackend() { llama_batch_free(batch_); }

Status LlamaBackend::choose_mode(const LlamaOptions &options, llama_context_params *params) {
    const llama_model *model = skeleton_->model();
    Pooling pooling = Pooling::none;
    if (Status s = read_pooling(model, &pooling); !s.ok()) return s;
    if (pooling == Pooling::none) {
        if (Status s = check_mode(options, *skeleton_); !s.ok()) return s;
        facts_ = mode_facts(options, *skeleton_);
        *params = context_params(options, facts_);
    } else {
        if (Status s = check_embedding_mode(options); !s.ok()) return s;
        facts_ = embedding_facts(options, model, pooling);
        *params = embedding_params(options, facts_);
    }
    return {};
}

Status LlamaBackend::open_context(const LlamaOptions &options) {
    llama_model *model = skeleton_->model();
    vocab_ = llama_model_get_vocab(model);
    llama_context_params params{};
    if (Status s = choose_mode(options, &params); !s.ok()) return s;
    params.abort_callback = [](void *pulse) {
        auto &told = *static_cast<Pulse *>(pulse);
        told.operations.fetch_add(1, std::memory_order_relaxed);
        return told.interrupted.load() || told.aborting.load();
    };
    params.abort_callback_data = &pulse_;
    LastWords words;
    {
        const auto allocate = [this](ggml_backend_buffer_type_t type, std::size_t bytes) {
            return context_memory_.allocate(type, bytes);
        };
        const BufferHook hook(allocate, 0);
        const ReferenceKernels kernels(options.deterministic);
        context_.reset(llama_init_from_model(model, params));
    }
    if (!context_) return {Code::model_unsupported, "libllama cannot open a context: " + words.text()};
    if (facts_.embedding.pooling == Pooling::none && llama_get_memory(context_.get()) == nullptr) {
        return {Code::model_unsupported, "the model keeps no context and names no pooling: there is nothing it can do"};
    }
    batch_ = llama_batch_init(static_cast<std::int32_t>(params.n_batch), 0, 1);
    samplers_.resize(options.slots);
    incoming_.resize(options.slots);
    note_kv(options);
    chat_ = std::make_unique<ChatRenderer>(model);
    return {};
}

Status LlamaBackend::attach(const std::string &weights_path) {
    if (weights_path.empty()) return {Code::invalid_argument, "weights_path is not given"};
    HostCopyView weights;
    if (Status s = HostCopyView::open(Env::posix(), weights_path, weights_bytes_, &weights); !s.ok()) return s;
    return skeleton_->attach(std::move(weights));
}

Status LlamaBackend::park(bool keep_weights) {
    if (!skeleton_->device_parts().empty()) {
        return {Code::wrong_state, "an engine on a device cannot be parked: its memory there would stay in use"};
    }
    adapters_.clear(context_.get());
    llama_memory_t memory = llama_get_memory(context_.get());
    if (memory != nullptr) llama_memory_clear(memory, false);
    context_memory_.drop();
    return keep_weights && skeleton_->in_place() ? Status() : skeleton_->detach();
}

std::vector<DeviceMemoryFacts> LlamaBackend::device_memory() const {
    std::vector<DeviceMemoryFacts> all;
    const llama_memory_breakdown breakdown = llama_get_memory_breakdown(context_.get());
    for (const DevicePart &part : skeleton_->device_parts()) {
        DeviceMemoryFacts facts{ggml_backend_dev_name(part.device), 0, 0, 0};
        for (const auto &[type, memory] : breakdown) {
            if (ggml_backend_buft_get_device(type) != part.device || ggml_backend_buft_is_host(type)) continue;
            facts.weights_bytes += memory.model;
            facts.context_bytes += memory.context;
            facts.compute_bytes += memory.compute;
        }
        all.push_back(std::move(facts));
    }
    return all;
}

UploadReport LlamaBackend::upload_report() const {
    const UploadFacts &facts = skeleton_->upload_facts();
    return {facts.bytes, facts.upload_ms, facts.wait_ms};
}

Status LlamaBackend::tokenize(std::string_view text, bool add_special, bool parse_special,
                              std::vector<std::int32_t> *out) const {
    if (text.size() > INT32_MAX / 2) return {Code::invalid_argument, "the text is too long"};
    const auto bytes = static_cast<std::int32_t>(text.size());
    // A token is rarely shorter than a byte; where it is, the library names the count and is asked again.
    out->resize(text.size() + 16);
    for (;;) {
        const std::int32_t n = llama_tokenize(vocab_, text.data(), bytes, out->data(),
                                              static_cast<std::int32_t>(out->size()), add_special, parse_special);
        if (n == INT32_MIN) return {Code::invalid_argument, "the text has too many tokens"};
        const auto count = static_cast<std::size_t>(n < 0 ? -n : n);
        out->resize(count);
        if (n >= 0) return {};
    }
}

Status LlamaBackend::tokenize_pair(std::string_view query, std::string_view document,
                                   std::vector<std::int32_t> *out) const {
    if (facts_.embedding.pooling != Pooling::rank) return Backend::tokenize_pair(query, document, out);
    return pair_tokens(skeleton_->model(), *this, query, document, out);
}

Status LlamaBackend::render_chat(std::string_view messages, std::string *out) const {
    return chat_->render(messages, out);
}

Status LlamaBackend::open_chat(std::string_view request, std::unique_ptr<Chat> *out) const {
    return chat_->open(request, out);
}

Status LlamaBackend::add_adapter(const AdapterFiles &files) {
    if (facts_.embedding.pooling != Pooling::none || facts_.shape.fixed) {
        return {Code::invalid_argument, "an engine that embeds or is deterministic takes no adapters"};
    }
    return adapters_.add(skeleton_->model(), files, skeleton_->device_parts().empty());
}

Status LlamaBackend::embed(std::span<const std::span<const std::int32_t>> sequences,
                           std::vector<std::vector<float>> *out) {
    return embed_batch(context_.get(), &batch_, facts_, sequences, out);
}

Status LlamaBackend::begin(std::uint32_t slot, const SamplingParams &sampling, const TokenHistory &history) {
    return Sampler::create(vocab_, sampling, history, &samplers_[slot]);
}

void LlamaBackend::end(std::uint32_t slot) { samplers_[slot].reset(); }

void LlamaBackend::cut(std::uint32_t slot, std::uint32_t length) {
    const auto sequence = static_cast<llama_seq_id>(slot);
    llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, static_cast<llama_pos>(length), -1);
}

void LlamaBackend::share(std::uint32_t from, std::uint32_t to, std::uint32_t length) {
    llama_memory_seq_cp(llama_get_memory(context_.get()), static_cast<llama_seq_id>(from),
                        static_cast<llama_seq_id>(to), 0, static_cast<llama_pos>(length));
}

Status LlamaBackend::decode(std::span<const BatchToken> batch) {
    batch_.n_tokens = 0;
    for (const BatchToken &token : batch) {
        const std::int32_t i = batch_.n_tokens++;
        batch_.token[i] = token.token;
        batch_.pos[i] = static_cast<llama_pos>(token.position);
        batch_.n_seq_id[i] = 1;
        batch_.seq_id[i][0] = static_cast<llama_seq_id>(token.slot);
        batch_.logits[i] = token.wants_output ? 1 : 0;
    }
    LastWords words;
    const auto hold = adapters_.hold_after_change();
    const std::int32_t result = llama_decode(context_.get(), batch_);
    constexpr std::int32_t was_aborted = 2;
    if (result == was_aborted && !pulse_.interrupted && facts_.abortable) {
        // The library has taken the batch's tokens out of its cache again: a batch is one micro-batch there.
        return {Code::cancelled, "the step was given up"};
    }
    if (result != 0) {
        return {Code::engine, "libllama failed to compute (" + std::to_string(result) + "): " + words.text()};
    }
    for (const BatchToken &token : batch) {
        if (token.filler) cut(token.slot, token.position);
    }
    return {};
}

const float *LlamaBackend::logits(std::size_t index) const {
    return llama_get_logits_ith(context_.get(), static_cast<std::int32_t>(index));
}

std::int32_t LlamaBackend::sample(std::uint32_t slot, std::size_t index, std::uint32_t position) {
    const auto vocabulary = static_cast<std::int32_t>(facts_.vocabulary_tokens);
    return samplers_[slot]->sample(logits(index), vocabulary, position, &candidates_);
}

Status LlamaBackend::accept(std::uint32_t slot, std::int32_t token) { return samplers_[slot]->accept(token); }

std::string LlamaBackend::logprobs(std::size_t index, std::int32_t token, std::uint32_t alternatives) const {
    return logprobs_of(logits(index), static_cast<std::int32_t>(facts_.vocabulary_tokens), token, alternatives,
                       [this](std::int32_t id) { return piece(id, true); });
}

bool LlamaBackend::ends_generation(std::int32_t token) const { return llama_vocab_is_eog(vocab_, token); }

void LlamaBackend::append_piece(std::uint32_t slot, std::int32_t token, std::string *out) const {
    out->append(piece(token, samplers_[slot]->shows(token)));
}

std::string LlamaBackend::piece(std::int32_t token, bool special) const {
    std::string text(64, '\0');
    for (;;) {
        const std::int32_t n = llama_token_to_piece(vocab_, token, text.data(), static_cast<std::int32_t>(text.size()),
                                                    0, special);
        text.resize(static_cast<std::size_t>(n < 0 ? -n : n));
        if (n >= 0) return text;
    }
}

}  // namespace sllm::llama
