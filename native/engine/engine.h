// Engine: requests come in from any thread, one compute thread runs them, events wait to be drained. It computes while
// it has its weights; parked, it keeps what the backend has built.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/limits.h"
#include "engine/backend.h"
#include "engine/event_queue.h"
#include "engine/request_runner.h"
#include "engine/session.h"
#include "io/env.h"

namespace sllm {

struct EngineOptions {
    std::uint32_t queue = limits::engine_queue;              // requests that may wait beyond the slots
    std::uint32_t prefill_tokens = limits::prefill_tokens;   // of a step for prompts, while streams run
};

// What an engine is at. Numbers of one moment, but for `progress`, which is newer.
struct EngineActivity {
    RunnerActivity batcher;
    bool computing = false;       // the compute thread is inside a step
    std::uint64_t progress = 0;   // stands still for long while computing: the engine hangs
};

class Engine {
public:
    explicit Engine(std::unique_ptr<Backend> backend, const EngineOptions &options = {}, Env &env = Env::posix());
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
    // See sllm_engine_hold and sllm_engine_extend.
    Status hold(std::uint64_t request);
    Status extend(std::uint64_t request, std::vector<std::int32_t> tokens, bool go);
    // See sllm_engine_save_kv and sllm_engine_load_kv.
    Status move_kv(KvTransfer transfer);
    EngineActivity activity();
    // See sllm_engine_add_adapter. [blocks]
    Status add_adapter(const AdapterFiles &files);
    Status remove_adapter(std::uint32_t adapter);

private:
    enum class Weights { absent, moving, present };
    // What is asked of a held request, or to hold it.
    struct HeldCommand {
        std::uint64_t request = 0;
        bool hold = false;  // else it gets tokens
        std::vector<std::int32_t> tokens;
        bool go = false;
    };

    void run();
    Status command(HeldCommand command);
    // Hands what came in to the runner; false when the engine ends.
    bool take_work();
    void emit(const sllm_event &event, std::string text, std::string logprobs);
    void fail(const Status &why);
    void note_step(bool begins);

    std::unique_ptr<Backend> backend_;
    const std::uint32_t queue_;
    Env &env_;
    EventQueue events_;
    const std::unique_ptr<RequestRunner> runner_;  // the compute thread's

    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable work_;
    bool stopping_ = false;
    bool failed_ = false;
    bool cache_is_gone_ = false;  // the backend was parked since the last step
    Weights weights_ = Weights::absent;
    double attach_ms_ = 0;
    RunnerActivity activity_;  // after the last step
    bool computing_ = false;
    bool aborting_ = false;        // the step under way is being given up
    bool aborted_before_ = false;  // the step before it was
    std::vector<std::unique_ptr<Session>> submitted_;
    std::vector<HeldCommand> held_;  // in the order they came
    std::vector<KvTransfer> kv_;     // the same
    std::vector<std::uint64_t> cancelled_;
    std::unordered_map<std::uint64_t, std::uint32_t> unfinished_;  // request -> its adapter
    std::set<std::uint32_t> adapters_;                             // that requests may name
    std::set<std::uint32_t> adding_;
    std::vector<std::uint32_t> removed_;  // until the compute thread has let them go
    std::condition_variable removal_;     // removed_ has become empty
    std::thread thread_;
};

}  // namespace sllm
