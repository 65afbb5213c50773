// The border: store.
#include <memory>
#include <utility>

#include "abi/guard.h"
#include "core/limits.h"
#include "store/store.h"

struct sllm_store {
    std::unique_ptr<sllm::Store> impl;
};

namespace {

using sllm::Code;
using sllm::Status;
using namespace sllm::abi;

Status no_handle() { return {Code::invalid_argument, "the store is NULL"}; }

}  // namespace

extern "C" {

sllm_status sllm_store_create(const sllm_store_params *params, sllm_store **out) {
    return guarded([&]() -> Status {
        sllm_store_params p;
        if (Status s = read_params(params, &p); !s.ok()) return s;
        if (out == nullptr) return {Code::invalid_argument, "out is NULL"};
        if (p.reader_threads > sllm::limits::reader_threads) {
            return {Code::invalid_argument, "at most " + std::to_string(sllm::limits::reader_threads) + " readers"};
        }
        auto store = std::make_unique<sllm_store>();
        sllm::StoreOptions options;
        if (p.huge_pages > 1 || p.read_method > 1) return {Code::invalid_argument, "huge_pages or read_method"};
        options.arena = {p.arena_bytes, p.prefault_bytes, p.huge_pages == 0};
        options.reads.method = static_cast<sllm::ReadMethod>(p.read_method);
        if (p.reader_threads > 0) options.reads.in_flight_bytes = p.reader_threads * options.reads.block_bytes;
        options.bytes_per_second = static_cast<double>(p.read_bytes_per_second);
        options.probe = p.reader_threads == 0 && p.read_method == 0 && p.read_bytes_per_second == 0;
        if (p.state_dir != nullptr) options.state_dir = p.state_dir;
        if (Status s = sllm::Store::create(options, sllm::Env::posix(), &store->impl); !s.ok()) return s;
        *out = store.release();
        return {};
    });
}

void sllm_store_destroy(sllm_store *store) { delete store; }

sllm_status sllm_store_load(sllm_store *store, const sllm_load_params *params, uint64_t *load) {
    return guarded([&]() -> Status {
        if (store == nullptr) return no_handle();
        sllm_load_params p;
        if (Status s = read_params(params, &p); !s.ok()) return s;
        if (load == nullptr) return {Code::invalid_argument, "load is NULL"};
        if (p.chunk_digests == nullptr || p.n_chunks == 0 ||
            p.n_chunks > sllm::limits::weights_bytes / sllm::limits::file_align_bytes) {
            return {Code::invalid_argument, "chunk_digests is empty or impossibly long"};
        }
        sllm::LoadRequest request;
        if (Status s = read_path(p.weights_path, "weights_path", &request.weights_path); !s.ok()) return s;
        request.weights_bytes = p.weights_bytes;
        request.chunk_bytes = p.chunk_bytes;
        request.stream_chunks = p.stream_chunks;
        request.lanes = p.lanes;
        request.chunk_digests.assign(p.chunk_digests, p.chunk_digests + p.n_chunks);
        return store->impl->load(std::move(request), load);
    });
}

sllm_status sllm_store_status(sllm_store *store, uint64_t load, sllm_load_status *out) {
    return guarded([&]() -> Status {
        if (store == nullptr) return no_handle();
        sllm::LoadStatus status;
        if (Status s = store->impl->status(load, &status); !s.ok()) return s;
        sllm_load_status result{};
        result.state = status.state;
        result.fd = status.fd;
        result.direct_io = status.direct_io ? 1 : 0;
        result.bytes_done = status.bytes_done;
        result.bytes_total = status.bytes_total;
        result.read_ms = status.read_ms;
        const sllm::LoadTrace &trace = status.trace;
        result.first_read_ms = trace.first_read_ms;
        result.first_verified_ms = trace.first_verified_ms;
        result.last_read_ms = trace.last_read_ms;
        result.ended_ms = trace.ended_ms;
        result.memory_wait_ms = trace.memory_wait_ms;
        result.fault_ms = trace.fault_ms;
        result.digest_ms = trace.digest_ms;
        result.direct_bytes = trace.direct_bytes;
        result.cached_bytes = trace.cached_bytes;
        result.buffered_bytes = trace.buffered_bytes;
        result.retries = trace.retries;
        result.rereads = trace.rereads;
        status.message.copy(result.message, sizeof result.message - 1);
        return write_result(result, out);
    });
}

sllm_status sllm_store_wait(sllm_store *store, uint64_t timeout_us) {
    return guarded([&]() -> Status {
        if (store == nullptr) return no_handle();
        store->impl->wait(timeout_us);
        return {};
    });
}

sllm_status sllm_store_release(sllm_store *store, uint64_t load) {
    return guarded([&]() -> Status {
        if (store == nullptr) return no_handle();
        return store->impl->release(load);
    });
}

sllm_status sllm_store_arena(sllm_store *store, sllm_arena_status *out) {
    return guarded([&]() -> Status {
        if (store == nullptr) return no_handle();
        const sllm::ArenaStatus status = store->impl->arena_status();
        sllm_arena_status result{};
        result.prefaulting = status.prefaulting ? 1 : 0;
        result.arena_bytes = status.arena_bytes;
        result.used_bytes = status.used_bytes;
        result.faulted_bytes = status.faulted_bytes;
        result.prefault_bytes = status.prefault_bytes;
        result.prefault_ms = status.prefault_ms;
        result.huge_bytes = status.huge_bytes;
        return write_result(result, out);
    });
}

sllm_status sllm_store_volume(sllm_store *store, const char *path, sllm_volume_status *out) {
    return guarded([&]() -> Status {
        if (store == nullptr) return no_handle();
        std::string name;
        if (Status s = read_path(path, "path", &name); !s.ok()) return s;
        sllm::VolumeStatus status;
        if (Status s = store->impl->volume_status(name, &status); !s.ok()) return s;
        sllm_volume_status result{};
        result.read_method = static_cast<std::uint32_t>(status.settings.method);
        result.file_system = static_cast<std::uint64_t>(status.file_system);
        result.block_bytes = status.settings.block_bytes;
        result.in_flight_bytes = status.settings.in_flight_bytes;
        result.queued_bytes = status.queued_bytes;
        result.queued_loads = status.queued_loads;
        result.direct_io = status.settings.direct ? 1 : 0;
        result.bytes_per_second = status.bytes_per_second;
        result.registered_bytes = status.registered_bytes;
        result.probed = status.probed ? 1 : 0;
        return write_result(result, out);
    });
}

}  // extern "C"
