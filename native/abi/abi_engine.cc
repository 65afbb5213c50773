// The border: layout plan and engine. Longer than other files because every function of the header stands here once.
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "abi/engine_handle.h"
#include "abi/guard.h"
#include "abi/read_request.h"
#include "core/limits.h"
#include "engine/echo_backend.h"
#include "engine/llama_module.h"

namespace {

using sllm::Code;
using sllm::Status;
using namespace sllm::abi;
namespace limits = sllm::limits;

Status no_handle() { return {Code::invalid_argument, "the engine is NULL"}; }

Status check(const sllm_engine_params &p) {
    const auto range = [](const char *name, std::uint64_t value, std::uint64_t low, std::uint64_t high) -> Status {
        if (value >= low && value <= high) return {};
        return {Code::invalid_argument,
                std::string(name) + " must be " + std::to_string(low) + " to " + std::to_string(high)};
    };
    if (Status s = range("context_tokens", p.context_tokens, 2, limits::context_tokens); !s.ok()) return s;
    if (Status s = range("slots", p.slots, 1, limits::slots); !s.ok()) return s;
    if (Status s = range("batch_tokens", p.batch_tokens, 0, limits::batch_tokens_max); !s.ok()) return s;
    if (Status s = range("prefill_tokens", p.prefill_tokens, 0, limits::batch_tokens_max); !s.ok()) return s;
    if (p.kv_tokens > 0) {
        const std::uint64_t all = std::uint64_t{p.slots} * p.context_tokens;
        if (Status s = range("kv_tokens", p.kv_tokens, p.context_tokens, all); !s.ok()) return s;
    }
    if (Status s = range("deterministic", p.deterministic, 0, 1); !s.ok()) return s;
    if (Status s = range("repacked", p.repacked, 0, 1); !s.ok()) return s;
    if (Status s = range("threads", p.threads, 0, limits::threads); !s.ok()) return s;
    return range("queue", p.queue, 0, limits::engine_queue_max);
}

Status build_backend(const sllm_engine_params &p, std::unique_ptr<sllm::Backend> *out) {
    const std::uint32_t batch_tokens = p.batch_tokens == 0 ? limits::batch_tokens : p.batch_tokens;
    if (p.kind == SLLM_ENGINE_ECHO) {
        *out = std::make_unique<sllm::EchoBackend>(p.context_tokens, p.slots, batch_tokens, p.echo_token_us,
                                                   p.kv_tokens);
        return {};
    }
    if (p.kind != SLLM_ENGINE_LLAMA) return {Code::invalid_argument, "kind is no SLLM_ENGINE_*"};
    sllm::LlamaOptions options;
    if (Status s = read_path(p.library_dir, "library_dir", &options.library_dir); !s.ok()) return s;
    if (Status s = read_path(p.header_path, "header_path", &options.header_path); !s.ok()) return s;
    const std::uint64_t align = limits::file_align_bytes;
    if (p.weights_bytes == 0 || p.weights_bytes % align != 0 || p.weights_bytes > limits::weights_bytes) {
        return {Code::invalid_argument, "weights_bytes must be a multiple of 4096 between 4096 and 4 TiB"};
    }
    options.weights_bytes = p.weights_bytes;
    options.context_tokens = p.context_tokens;
    options.slots = p.slots;
    options.batch_tokens = batch_tokens;
    options.kv_tokens = p.kv_tokens;
    options.deterministic = p.deterministic != 0;
    options.repacked = p.repacked != 0;
    options.threads = p.threads;
    if (Status s = sllm::parse_devices(p.devices == nullptr ? "" : p.devices, &options.devices); !s.ok()) return s;
    const sllm::LlamaModule *module = nullptr;
    if (Status s = sllm::load_llama_module(options.library_dir, &module); !s.ok()) return s;
    return module->build_backend(options, out);
}

Status write_tokens(const std::vector<std::int32_t> &tokens, std::int32_t *out, std::uint64_t cap, std::uint64_t *n) {
    *n = tokens.size();
    if (tokens.size() > cap) {
        return {Code::buffer_too_small, "the text has " + std::to_string(tokens.size()) + " tokens"};
    }
    std::copy(tokens.begin(), tokens.end(), out);
    return {};
}

// An engine without weights. out is only looked at.
Status build(const sllm_engine_params &p, sllm_engine **out, std::unique_ptr<sllm_engine> *engine) {
    if (out == nullptr) return {Code::invalid_argument, "out is NULL"};
    if (Status s = check(p); !s.ok()) return s;
    std::unique_ptr<sllm::Backend> backend;
    if (Status s = build_backend(p, &backend); !s.ok()) return s;
    sllm::EngineOptions options;
    if (p.queue > 0) options.queue = p.queue;
    if (p.prefill_tokens > 0) options.prefill_tokens = p.prefill_tokens;
    *engine = std::make_unique<sllm_engine>(std::move(backend), options);
    return {};
}

}  // namespace

extern "C" {

sllm_status sllm_layout_plan(const char *library_dir, const char *header_path, char *out, uint64_t cap,
                             uint64_t *needed) {
    return guarded([&]() -> Status {
        std::string libraries;
        std::string header;
        if (Status s = read_path(library_dir, "library_dir", &libraries); !s.ok()) return s;
        if (Status s = read_path(header_path, "header_path", &header); !s.ok()) return s;
        const sllm::LlamaModule *module = nullptr;
        if (Status s = sllm::load_llama_module(libraries, &module); !s.ok()) return s;
        std::string json;
        if (Status s = module->plan_layout(libraries, header, &json); !s.ok()) return s;
        return write_text(json, out, cap, needed);
    });
}

sllm_status sllm_devices(const char *library_dir, char *out, uint64_t cap, uint64_t *needed) {
    return guarded([&]() -> Status {
        std::string libraries;
        if (Status s = read_path(library_dir, "library_dir", &libraries); !s.ok()) return s;
        const sllm::LlamaModule *module = nullptr;
        if (Status s = sllm::load_llama_module(libraries, &module); !s.ok()) return s;
        std::string json;
        if (Status s = module->list_devices(libraries, &json); !s.ok()) return s;
        return write_text(json, out, cap, needed);
    });
}

sllm_status sllm_engine_warm(const char *library_dir) {
    return guarded([&]() -> Status {
        std::string libraries;
        if (Status s = read_path(library_dir, "library_dir", &libraries); !s.ok()) return s;
        const sllm::LlamaModule *module = nullptr;
        if (Status s = sllm::load_llama_module(libraries, &module); !s.ok()) return s;
        return module->warm(libraries);
    });
}

sllm_status sllm_engine_create(const sllm_engine_params *params, sllm_engine **out) {
    return guarded([&]() -> Status {
        sllm_engine_params p;
        if (Status s = read_params(params, &p); !s.ok()) return s;
        std::string weights_path;
        if (p.kind == SLLM_ENGINE_LLAMA) {
            if (Status s = read_path(p.weights_path, "weights_path", &weights_path); !s.ok()) return s;
        }
        std::unique_ptr<sllm_engine> engine;
        if (Status s = build(p, out, &engine); !s.ok()) return s;
        if (Status s = engine->impl.attach(weights_path); !s.ok()) return s;
        *out = engine.release();
        return {};
    });
}

sllm_status sllm_engine_build(const sllm_engine_params *params, sllm_engine **out) {
    return guarded([&]() -> Status {
        sllm_engine_params p;
        if (Status s = read_params(params, &p); !s.ok()) return s;
        std::unique_ptr<sllm_engine> engine;
        if (Status s = build(p, out, &engine); !s.ok()) return s;
        *out = engine.release();
        return {};
    });
}

sllm_status sllm_engine_attach(sllm_engine *engine, const char *weights_path) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        return engine->impl.attach(weights_path == nullptr ? "" : weights_path);
    });
}

sllm_status sllm_engine_park(sllm_engine *engine, uint8_t keep_weights) {
    return guarded([&]() -> Status { return engine == nullptr ? no_handle() : engine->impl.park(keep_weights != 0); });
}

void sllm_engine_destroy(sllm_engine *engine) { delete engine; }

sllm_status sllm_engine_info_get(sllm_engine *engine, sllm_engine_info *out) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        const sllm::BackendFacts &facts = engine->impl.backend().facts();
        sllm_engine_info result{};
        result.vocabulary_tokens = facts.vocabulary_tokens;
        result.context_tokens = facts.context_tokens;
        result.slots = facts.slots;
        result.model_build_ms = facts.model_build_ms;
        facts.fingerprint.copy(result.fingerprint, sizeof result.fingerprint - 1);
        result.pooling = static_cast<std::uint32_t>(facts.embedding.pooling);
        result.embedding_values = facts.embedding.values;
        result.kv_token_bytes = facts.kv_token_bytes;
        facts.kv_fingerprint.copy(result.kv_fingerprint, sizeof result.kv_fingerprint - 1);
        result.weights_wait_ms = engine->impl.attach_ms();
        const sllm::UploadReport upload = engine->impl.backend().upload_report();
        result.uploaded_bytes = upload.bytes;
        result.upload_ms = upload.upload_ms;
        result.upload_wait_ms = upload.wait_ms;
        return write_result(result, out);
    });
}

sllm_status sllm_engine_activity_get(sllm_engine *engine, sllm_engine_activity *out) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        const sllm::BackendFacts &facts = engine->impl.backend().facts();
        const sllm::EngineActivity now = engine->impl.activity();
        sllm_engine_activity result{};
        result.slots = facts.slots;
        result.running = now.batcher.running;
        result.waiting = now.batcher.waiting;
        result.kv_tokens = facts.kv.kv_tokens;
        result.kv_used_tokens = now.batcher.kv_used_tokens;
        result.steps = now.batcher.steps;
        result.computed_tokens = now.batcher.computed_tokens;
        result.progress = now.progress;
        result.last_step_tokens = now.batcher.last_step_tokens;
        result.computing = now.computing ? 1 : 0;
        return write_result(result, out);
    });
}

sllm_status sllm_engine_device_memory(sllm_engine *engine, char *out, uint64_t cap, uint64_t *needed) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        auto devices = nlohmann::json::array();
        for (const sllm::DeviceMemoryFacts &facts : engine->impl.backend().device_memory()) {
            devices.push_back({{"name", facts.name},
                               {"weights_bytes", facts.weights_bytes},
                               {"context_bytes", facts.context_bytes},
                               {"compute_bytes", facts.compute_bytes}});
        }
        return write_text(nlohmann::json{{"devices", devices}}.dump(), out, cap, needed);
    });
}

sllm_status sllm_engine_render_chat(sllm_engine *engine, const char *messages, uint64_t messages_bytes, char *out,
                                    uint64_t cap, uint64_t *needed) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        if (messages == nullptr) return {Code::invalid_argument, "messages is NULL"};
        std::string prompt;
        if (Status s = engine->impl.backend().render_chat({messages, messages_bytes}, &prompt); !s.ok()) return s;
        return write_text(prompt, out, cap, needed);
    });
}

sllm_status sllm_engine_tokenize(sllm_engine *engine, const char *text, uint64_t text_bytes, uint8_t add_special,
                                 uint8_t parse_special, int32_t *out, uint64_t cap, uint64_t *n) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        if ((text == nullptr && text_bytes > 0) || (out == nullptr && cap > 0) || n == nullptr) {
            return {Code::invalid_argument, "a pointer is NULL"};
        }
        std::vector<std::int32_t> tokens;
        const std::string_view view(text_bytes == 0 ? "" : text, text_bytes);
        if (Status s = engine->impl.backend().tokenize(view, add_special != 0, parse_special != 0, &tokens); !s.ok()) {
            return s;
        }
        return write_tokens(tokens, out, cap, n);
    });
}

sllm_status sllm_engine_tokenize_pair(sllm_engine *engine, const char *query, uint64_t query_bytes,
                                      const char *document, uint64_t document_bytes, int32_t *out, uint64_t cap,
                                      uint64_t *n) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        if ((query == nullptr && query_bytes > 0) || (document == nullptr && document_bytes > 0) ||
            (out == nullptr && cap > 0) || n == nullptr) {
            return {Code::invalid_argument, "a pointer is NULL"};
        }
        std::vector<std::int32_t> tokens;
        const std::string_view asked(query_bytes == 0 ? "" : query, query_bytes);
        const std::string_view about(document_bytes == 0 ? "" : document, document_bytes);
        if (Status s = engine->impl.backend().tokenize_pair(asked, about, &tokens); !s.ok()) return s;
        return write_tokens(tokens, out, cap, n);
    });
}

sllm_status sllm_engine_submit(sllm_engine *engine, const sllm_request *request) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        sllm_request r;
        if (Status s = read_params(request, &r); !s.ok()) return s;
        sllm::Request copy;
        if (Status s = read_request(r, &copy); !s.ok()) return s;
        return engine->impl.submit(std::move(copy));
    });
}

sllm_status sllm_engine_cancel(sllm_engine *engine, uint64_t request) {
    return guarded([&]() -> Status { return engine == nullptr ? no_handle() : engine->impl.cancel(request); });
}

sllm_status sllm_engine_hold(sllm_engine *engine, uint64_t request) {
    return guarded([&]() -> Status { return engine == nullptr ? no_handle() : engine->impl.hold(request); });
}

sllm_status sllm_engine_extend(sllm_engine *engine, uint64_t request, const int32_t *tokens, uint64_t n_tokens,
                               uint8_t go) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        if (tokens == nullptr && n_tokens > 0) return {Code::invalid_argument, "tokens is NULL"};
        if (n_tokens > limits::context_tokens) return {Code::context_overflow, "more tokens than any context has"};
        std::vector<std::int32_t> copy;
        if (n_tokens > 0) copy.assign(tokens, tokens + n_tokens);
        return engine->impl.extend(request, std::move(copy), go != 0);
    });
}

sllm_status sllm_engine_wait(sllm_engine *engine, uint64_t timeout_us) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        engine->impl.events().wait(timeout_us);
        return {};
    });
}

sllm_status sllm_engine_drain(sllm_engine *engine, sllm_event *out, uint64_t cap, uint64_t *n, char *text,
                              uint64_t text_cap, uint64_t *text_n) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return no_handle();
        if (n == nullptr || text_n == nullptr || (out == nullptr && cap > 0) || (text == nullptr && text_cap > 0)) {
            return {Code::invalid_argument, "a pointer is NULL"};
        }
        return engine->impl.events().drain(out, cap, n, text, text_cap, text_n);
    });
}

}  // extern "C"
