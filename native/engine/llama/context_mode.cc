// The two modes.
#include "engine/llama/context_mode.h"

#include <algorithm>
#include <climits>
#include <mutex>

#include "engine/llama/libraries.h"
#include "io/env.h"

namespace sllm::llama {

namespace {

// The library rounds the cells of a sequence up to this.
constexpr std::uint32_t cells_step = 256;

// Models whose sums are known not to keep their order, or not known to.
Status check_deterministic(const LlamaOptions &options, const ModelSkeleton &skeleton) {
    const auto refuse = [](const char *why) -> Status {
        return {Code::model_unsupported, std::string("no deterministic mode: ") + why};
    };
    const llama_model *model = skeleton.model();
    const std::string architecture = metadata(model, "general.architecture");
    if (!options.devices.empty()) return refuse("it computes on processors only");
    if (options.repacked) return refuse("repacked weights are computed on in another order");
    if (llama_model_is_recurrent(model) || llama_model_is_hybrid(model)) return refuse("the model is recurrent");
    if (llama_model_n_swa(model) > 0) return refuse("the model has a sliding window");
    if (!metadata(model, architecture + ".expert_count").empty()) return refuse("the model has experts");
    if (architecture == "grok") return refuse("the model has no flash attention");
    if (options.slots >= llama_max_parallel_sequences()) {
        return {Code::invalid_argument, "the deterministic mode has at most " +
                                            std::to_string(llama_max_parallel_sequences() - 1) + " slots"};
    }
    return {};
}

// Whether a matrix has a type that the library multiplies with one row in another way than with several. Vectors are no
// matrices: norms and biases work row by row.
bool any_lone_row_differs(const ModelSkeleton &skeleton) {
    return std::any_of(skeleton.tensors().begin(), skeleton.tensors().end(), [](const SkeletonTensor &one) {
        const ggml_type type = one.tensor->type;
        const bool alike =
            type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q6_K;
        return ggml_n_dims(one.tensor) > 1 && !alike;
    });
}

std::mutex hook_mutex;
decltype(ggml_backend_device_i::init_backend) original_init = nullptr;
thread_local bool hook_is_ours = false;

ggml_backend_t init_with_reference_kernels(ggml_backend_dev_t device, const char *params) {
    const ggml_backend_t backend = original_init(device, params);
    if (backend == nullptr || !hook_is_ours) return backend;
    using SetUseRef = void (*)(ggml_backend_t, bool);
    void *function = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device),
                                                       "ggml_backend_cpu_set_use_ref");
    reinterpret_cast<SetUseRef>(function)(backend, true);
    return backend;
}

}  // namespace

std::uint32_t compute_threads(std::uint32_t asked) {
    return asked > 0 ? asked : std::max(1u, Env::posix().processors() - 1);
}

std::string metadata(const llama_model *model, const std::string &key) {
    char value[128];
    return llama_model_meta_val_str(model, key.c_str(), value, sizeof value) < 0 ? "" : value;
}

Status check_mode(const LlamaOptions &options, const ModelSkeleton &skeleton) {
    if (options.slots > llama_max_parallel_sequences()) {
        return {Code::invalid_argument,
                "at most " + std::to_string(llama_max_parallel_sequences()) + " slots are possible"};
    }
    const std::uint64_t cells = (std::uint64_t{options.slots} + 1) * (options.context_tokens + cells_step);
    if (cells > INT32_MAX) return {Code::invalid_argument, "slots times context_tokens is too large"};
    if (options.kv_tokens > 0 && options.kv_tokens < options.context_tokens) {
        return {Code::invalid_argument, "kv_tokens must hold at least one context"};
    }
    if (!options.deterministic) return {};
    if (options.kv_tokens > 0) {
        return {Code::invalid_argument, "in the deterministic mode every slot has cells of its own: no kv_tokens"};
    }
    return check_deterministic(options, skeleton);
}

BackendFacts mode_facts(const LlamaOptions &options, const ModelSkeleton &skeleton) {
    const llama_model *model = skeleton.model();
    const std::uint32_t all = options.slots * options.context_tokens;
    BackendFacts facts;
    facts.vocabulary_tokens = static_cast<std::uint32_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
    facts.context_tokens = options.context_tokens;
    facts.slots = options.slots;
    facts.kv.kv_tokens = options.kv_tokens == 0 ? all : std::min(options.kv_tokens, all);
    facts.kv.shared = !options.deterministic;
    // A sliding window has lost what lies behind it, a recurrent state cannot go back.
    facts.kv.cuttable =
        !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model) && llama_model_n_swa(model) == 0;
    // The library asks between two operations on the CPU only. A step of several calls is no whole any more.
    facts.abortable = options.devices.empty() && facts.kv.cuttable && !options.deterministic;
    facts.batch_tokens = std::min(std::max(options.batch_tokens, options.slots), facts.kv.kv_tokens);
    if (options.deterministic) {
        facts.shape = {true, any_lone_row_differs(skeleton)};
        const LibraryVersions versions = loaded_versions();
        facts.fingerprint = "llama " + versions.llama + ", ggml " + versions.ggml_commit + ", " + loaded_build() +
                            ", deterministic, kv f16 per slot, context " + std::to_string(options.context_tokens);
    }
    return facts;
}

llama_context_params context_params(const LlamaOptions &options, const BackendFacts &facts) {
    llama_context_params params = llama_context_default_params();
    // A slot more in the deterministic mode, for rows that are of no meaning, and a cell more in each: those rows stand
    // behind what a slot holds.
    const std::uint32_t spare = options.deterministic ? 1 : 0;
    const std::uint32_t per_slot = (facts.context_tokens + spare + cells_step - 1) / cells_step * cells_step;
    params.n_seq_max = facts.slots + spare;
    params.n_ctx = options.deterministic ? params.n_seq_max * per_slot : facts.kv.kv_tokens;
    params.n_batch = params.n_ubatch = std::max(facts.batch_tokens, params.n_seq_max);
    params.n_outputs_max = params.n_seq_max;  // one token per slot and step is sampled: no logits for the rest
    params.n_threads = params.n_threads_batch = static_cast<std::int32_t>(compute_threads(options.threads));
    params.type_k = params.type_v = GGML_TYPE_F16;
    // On where the model allows it, which the library decides from the model alone: on one build and kind of device
    // the answer never changes.
    params.flash_attn_type =
        options.deterministic ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_AUTO;
    // One pool of cells for all slots: a step is one pass over the weights whichever slots it touches. But its free
    // cells are filled in any order, which is the order that attention adds up in.
    params.kv_unified = !options.deterministic;
    params.no_perf = true;
    return params;
}

ReferenceKernels::ReferenceKernels(bool wanted) : wanted_(wanted) {
    if (!wanted_) return;
    hook_mutex.lock();
    ggml_backend_device_i &iface = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)->iface;
    original_init = iface.init_backend;
    iface.init_backend = init_with_reference_kernels;
    hook_is_ours = true;
}

ReferenceKernels::~ReferenceKernels() {
    if (!wanted_) return;
    hook_is_ours = false;
    ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)->iface.init_backend = original_init;
    hook_mutex.unlock();
}

}  // namespace sllm::llama
