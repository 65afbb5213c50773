// Creation, batches and text of the libllama backend.
#include "engine/llama/llama_backend.h"

#include <algorithm>
#include <climits>
#include <map>

#include "engine/llama/buffer_hook.h"
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

// The library's threads wait for each other by spinning at every operation: with as many threads as processors, any
// other work on the machine (gateway, worker, a second engine) makes each token take tens of times longer.
std::uint32_t compute_threads(std::uint32_t asked) {
    return asked > 0 ? asked : std::max(1u, Env::posix().processors() - 1);
}

llama_context_params context_params(const LlamaOptions &options, std::uint32_t batch_tokens) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = options.slots * options.context_tokens;
    params.n_batch = params.n_ubatch = batch_tokens;
    params.n_seq_max = options.slots;
    params.n_outputs_max = options.slots;  // one token per slot and step is sampled: no logits for the rest
    params.n_threads = params.n_threads_batch = static_cast<std::int32_t>(compute_threads(options.threads));
    params.type_k = params.type_v = GGML_TYPE_F16;
    // On where the model allows it, which the library decides from the model alone: on one build and kind of device
    // the answer never changes.
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
    // One pool of cells for all slots: a step is one pass over the weights whichever slots it touches.
    params.kv_unified = true;
    params.no_perf = true;
    return params;
}

}  // namespace

Status LlamaBackend::build(const LlamaOptions &options, std::unique_ptr<Backend> *out) {
    if (Status s = prepare_libraries(options.library_dir); !s.ok()) return s;
    Env &env = Env::posix();
    std::unique_ptr<LlamaBackend> backend(new LlamaBackend);
    const double started = env.now_ms();
    if (Status s = ModelSkeleton::build(options.header_path, options.weights_bytes, options.devices,
                                        &backend->skeleton_);
        !s.ok()) {
        return s;
    }
    if (Status s = check_kind(backend->skeleton_->model()); !s.ok()) return s;
    if (Status s = backend->open_context(options); !s.ok()) return s;
    backend->facts_.model_build_ms = env.now_ms() - started;
    backend->weights_bytes_ = options.weights_bytes;
    *out = std::move(backend);
    return {};
}

LlamaBackend::~LlamaBackend() { llama_batch_free(batch_); }

Status LlamaBackend::open_context(const LlamaOptions &options) {
    llama_model *model = skeleton_->model();
    vocab_ = llama_model_get_vocab(model);
    if (options.slots > llama_max_parallel_sequences()) {
        return {Code::invalid_argument,
                "at most " + std::to_string(llama_max_parallel_sequences()) + " slots are possible"};
    }
    const std::uint64_t cells = std::uint64_t{options.slots} * options.context_tokens;
    if (cells > INT32_MAX) return {Code::invalid_argument, "slots times context_tokens is too large"};
    facts_.vocabulary_tokens = static_cast<std::uint32_t>(llama_vocab_n_tokens(vocab_));
    facts_.context_tokens = options.context_tokens;
    facts_.slots = options.slots;
    const std::uint32_t batch_tokens = std::max(options.batch_tokens, options.slots);
    facts_.batch_tokens = static_cast<std::uint32_t>(std::min<std::uint64_t>(batch_tokens, cells));
    llama_context_params params = context_params(options, facts_.batch_tokens);
    params.abort_callback = [](void *flag) { return static_cast<std::atomic<bool> *>(flag)->load(); };
    params.abort_callback_data = &interrupted_;
    LastWords words;
    {
        const auto allocate = [this](ggml_backend_buffer_type_t type, std::size_t bytes) {
            return context_memory_.allocate(type, bytes);
        };
        const BufferHook hook(allocate, 0);
        context_.reset(llama_init_from_model(model, params));
    }
    if (!context_) return {Code::model_unsupported, "libllama cannot open a context: " + words.text()};
    if (llama_get_memory(context_.get()) == nullptr) {
        return {Code::model_unsupported, "the model keeps no context: it does not generate text"};
    }
    batch_ = llama_batch_init(static_cast<std::int32_t>(facts_.batch_tokens), 0, 1);
    samplers_.resize(options.slots);
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
    llama_memory_clear(llama_get_memory(context_.get()), false);
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

Status LlamaBackend::render_chat(std::string_view messages, std::string *out) const {
    return chat_->render(messages, out);
}

Status LlamaBackend::open_chat(std::string_view request, std::unique_ptr<Chat> *out) const {
    return chat_->open(request, out);
}

Status LlamaBackend::begin(std::uint32_t slot, const SamplingParams &sampling, const TokenHistory &history) {
    return Sampler::create(vocab_, sampling, history, &samplers_[slot]);
}

void LlamaBackend::end(std::uint32_t slot) {
    samplers_[slot].reset();
    llama_memory_seq_rm(llama_get_memory(context_.get()), static_cast<llama_seq_id>(slot), -1, -1);
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
    const std::int32_t result = llama_decode(context_.get(), batch_);
    if (result == 0) return {};
    return {Code::engine, "libllama failed to compute (" + std::to_string(result) + "): " + words.text()};
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
