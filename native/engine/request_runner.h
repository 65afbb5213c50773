// RequestRunner: what the compute thread does with requests. A Batcher generates, an Embedder makes vectors. Not
// thread-safe: everything here happens on one thread, but for what says [any].
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/status.h"
#include "engine/session.h"
#include "sllm/sllm.h"

namespace sllm {

// What a runner is at, and what it has done since it was made.
struct RunnerActivity {
    std::uint32_t running = 0;           // requests in slots
    std::uint32_t waiting = 0;           // without one, preempted ones included
    std::uint64_t kv_used_tokens = 0;    // of the cache, what free slots keep included
    std::uint64_t steps = 0;
    std::uint64_t computed_tokens = 0;   // in all steps: prompts, answers, and what was computed again
    std::uint32_t last_step_tokens = 0;
};

// Rows of a request's tokens in the KV cache, on their way to a file or from it.
struct KvTransfer {
    std::uint64_t request = 0;
    bool load = false;      // else they are saved
    std::string path;
    std::uint32_t from = 0;  // the first token
    std::uint32_t to = 0;    // one beyond the last
    std::uint32_t all = 0;   // of which they are a part; load only
    std::uint64_t digest = 0;  // XXH3 of the file; load only
};

class RequestRunner {
public:
    // Takes every event, as EventQueue::push does. After DONE or ERROR nothing more happens to the request, here or in
    // the backend.
    using Emit = std::function<void(const sllm_event &event, std::string text, std::string logprobs)>;

    virtual ~RequestRunner() = default;

    // There is nothing to do: no request is unfinished, or those that are wait to be let go.
    virtual bool idle() const = 0;
    virtual void add(std::unique_ptr<Session> session) = 0;
    // Ends a request as CANCELLED; nothing when it has ended.
    virtual void cancel(std::uint64_t request) = 0;
    // See sllm_engine_hold and sllm_engine_extend; nothing when the request has ended.
    virtual void hold(std::uint64_t) {}
    virtual void extend(std::uint64_t, std::span<const std::int32_t>, bool) {}
    // Whether a request is about to be let go, whose reader waits: the step under way leaves out what it has not begun
    // of held ones. [any]
    virtual void hurry(bool) {}
    // See sllm_engine_save_kv and sllm_engine_load_kv; nothing when the request has ended.
    virtual void move_kv(const KvTransfer &) {}
    // Gives requests that wait what is free and computes once. After an error only fail_all may follow.
    virtual Status step() = 0;
    // Whether a request makes up at least half of the step under way: the others lose little with it. [any]
    virtual bool dominates_step(std::uint64_t) const { return false; }
    virtual RunnerActivity activity() const = 0;
    // Ends all requests with an error.
    virtual void fail_all(const Status &why) = 0;
    // An adapter goes that no request uses.
    virtual void remove_adapter(std::uint32_t) {}
    // The backend has lost all sequences and adapters; no request is running.
    virtual void forget_cache() {}
};

// An event of a session's request, with nothing but its kind.
inline sllm_event event_of(const Session &session, std::uint32_t kind) {
    sllm_event event{};
    event.request = session.request.number;
    event.kind = kind;
    return event;
}

// The ERROR event of a request; its text is the status' message.
inline sllm_event error_event(std::uint64_t request, const Status &why) {
    sllm_event event{};
    event.request = request;
    event.kind = SLLM_EVENT_ERROR;
    event.status = static_cast<std::int32_t>(why.code());
    return event;
}

}  // namespace sllm
