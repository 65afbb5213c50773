// Engine: continuous batching over the slots of one backend. Requests are queued by any thread; one compute thread
// admits, computes step after step and puts events into a queue. It computes while it has its weights; parked, it keeps
// what the backend has built.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/backend.h"
#include "engine/event_queue.h"
#include "engine/session.h"
#include "io/env.h"

namespace sllm {

class Engine {
public:
    // queue: requests that may wait beyond the slots.
    Engine(std::unique_ptr<Backend> backend, std::uint32_t queue, Env &env = Env::posix());
    // Ends all requests without events and joins the thread.
    ~Engine();
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    // All [any].
    const Backend &backend() const { return *backend_; }
    EventQueue &events() { return events_; }
    Status submit(Request request);
    // See sllm_engine_attach and sllm_engine_park: not together with each other. [blocks]
    Status attach(const std::string &weights_path);
    Status park(bool keep_weights);
    // Duration of the last attach.
    double attach_ms();
    Status cancel(std::uint64_t request);

private:
    enum class Weights { absent, moving, present };

    void run();
    // The compute thread's; sessions_ is touched by no other.
    bool wait_for_work();
    void drop_cancelled();
    void admit();
    Status step();
    void take_token(Session &session, std::int32_t token, std::string logprobs);
    // Each of the first two ends a request, with its event; leave gives its slot back and destroys the session.
    void finish(Session &session, std::int32_t reason, std::string text);
    void give_up(Session &session, const Status &why);
    void leave(Session &session);
    void fail_all(const Status &why);
    void push_error(std::uint64_t request, const Status &why);
    bool forget(std::uint64_t request);

    std::unique_ptr<Backend> backend_;
    const std::uint32_t queue_;
    Env &env_;
    EventQueue events_;

    // Sessions with a slot, oldest first; those that ended are removed after each step.
    std::vector<std::unique_ptr<Session>> sessions_;
    std::vector<std::uint32_t> free_slots_;  // the lowest last

    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable work_;
    bool stopping_ = false;
    bool failed_ = false;
    Weights weights_ = Weights::absent;
    double attach_ms_ = 0;
    std::deque<std::unique_ptr<Session>> waiting_;
    std::unordered_map<std::uint64_t, bool> unfinished_;  // request -> whether it is to be cancelled
    std::thread thread_;
};

}  // namespace sllm
