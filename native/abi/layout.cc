// The border's shape, held fast at compile time: language bindings mirror these sizes and offsets.
#include <cstddef>

#include "core/status.h"
#include "sllm/sllm.h"

static_assert(sizeof(sllm_store_params) == 48 && offsetof(sllm_store_params, arena_bytes) == 8 &&
              offsetof(sllm_store_params, huge_pages) == 24 && offsetof(sllm_store_params, state_dir) == 32 &&
              offsetof(sllm_store_params, read_bytes_per_second) == 40);
static_assert(sizeof(sllm_arena_status) == 56 && offsetof(sllm_arena_status, used_bytes) == 16 &&
              offsetof(sllm_arena_status, prefault_ms) == 40 && offsetof(sllm_arena_status, huge_bytes) == 48);
static_assert(sizeof(sllm_volume_status) == 72 && offsetof(sllm_volume_status, queued_bytes) == 32 &&
              offsetof(sllm_volume_status, bytes_per_second) == 48 && offsetof(sllm_volume_status, probed) == 64);
static_assert(sizeof(sllm_load_params) == 56 && offsetof(sllm_load_params, weights_path) == 8 &&
              offsetof(sllm_load_params, chunk_digests) == 32 && offsetof(sllm_load_params, n_chunks) == 40 &&
              offsetof(sllm_load_params, lanes) == 48);
static_assert(sizeof(sllm_load_status) == 640 && offsetof(sllm_load_status, first_read_ms) == 552 &&
              offsetof(sllm_load_status, direct_bytes) == 608 && offsetof(sllm_load_status, retries) == 632 &&
              offsetof(sllm_load_status, bytes_done) == 16 &&
              offsetof(sllm_load_status, read_ms) == 32 && offsetof(sllm_load_status, message) == 40);
static_assert(sizeof(sllm_engine_params) == 88 && offsetof(sllm_engine_params, library_dir) == 8 &&
              offsetof(sllm_engine_params, weights_bytes) == 32 && offsetof(sllm_engine_params, slots) == 44 &&
              offsetof(sllm_engine_params, echo_token_us) == 60 && offsetof(sllm_engine_params, devices) == 64 &&
              offsetof(sllm_engine_params, prefill_tokens) == 72);
static_assert(sizeof(sllm_engine_info) == 584 && offsetof(sllm_engine_info, model_build_ms) == 16 &&
              offsetof(sllm_engine_info, uploaded_bytes) == 32 && offsetof(sllm_engine_info, fingerprint) == 56 &&
              offsetof(sllm_engine_info, pooling) == 312 && offsetof(sllm_engine_info, kv_token_bytes) == 320);
static_assert(sizeof(sllm_engine_activity) == 64 && offsetof(sllm_engine_activity, kv_tokens) == 16 &&
              offsetof(sllm_engine_activity, progress) == 48 && offsetof(sllm_engine_activity, computing) == 60);
static_assert(sizeof(sllm_text) == 16);
static_assert(sizeof(sllm_logit_bias) == 8 && sizeof(sllm_logprob) == 16);
static_assert(sizeof(sllm_request) == 192 && offsetof(sllm_request, typical_p) == 88 &&
              offsetof(sllm_request, logit_bias) == 128 && offsetof(sllm_request, constraint_bytes) == 152 &&
              offsetof(sllm_request, resume) == 160 && offsetof(sllm_request, dimensions) == 176 &&
              offsetof(sllm_request, held) == 184 && offsetof(sllm_request, awaits_kv) == 188);
static_assert(sizeof(sllm_adapter_params) == 40 && offsetof(sllm_adapter_params, weights_bytes) == 24);
static_assert(offsetof(sllm_request, request) == 8 &&
              offsetof(sllm_request, max_tokens) == 32 && offsetof(sllm_request, temperature) == 48 &&
              offsetof(sllm_request, top_k) == 72 && offsetof(sllm_request, stop) == 80);
static_assert(sizeof(sllm_event) == 64 && offsetof(sllm_event, text_offset) == 24 &&
              offsetof(sllm_event, queue_ms) == 40 && offsetof(sllm_event, decode_ms) == 56);

namespace {

constexpr bool same(sllm::Code code, int value) { return static_cast<int>(code) == value; }

}  // namespace

static_assert(same(sllm::Code::ok, SLLM_OK) && same(sllm::Code::invalid_argument, SLLM_E_INVALID_ARGUMENT) &&
              same(sllm::Code::not_found, SLLM_E_NOT_FOUND) &&
              same(sllm::Code::buffer_too_small, SLLM_E_BUFFER_TOO_SMALL) &&
              same(sllm::Code::overloaded, SLLM_E_OVERLOADED) && same(sllm::Code::closed, SLLM_E_CLOSED) &&
              same(sllm::Code::out_of_memory, SLLM_E_OUT_OF_MEMORY) &&
              same(sllm::Code::wrong_state, SLLM_E_WRONG_STATE) && same(sllm::Code::io, SLLM_E_IO) &&
              same(sllm::Code::corrupt, SLLM_E_CORRUPT) &&
              same(sllm::Code::library_missing, SLLM_E_LIBRARY_MISSING) &&
              same(sllm::Code::library_version, SLLM_E_LIBRARY_VERSION) &&
              same(sllm::Code::model_unsupported, SLLM_E_MODEL_UNSUPPORTED) &&
              same(sllm::Code::context_overflow, SLLM_E_CONTEXT_OVERFLOW) &&
              same(sllm::Code::cancelled, SLLM_E_CANCELLED) && same(sllm::Code::engine, SLLM_E_ENGINE) &&
              same(sllm::Code::internal, SLLM_E_INTERNAL));
