// The engine's door and its compute thread.
#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "core/limits.h"
#include "engine/batcher.h"
#include "engine/embedder.h"
#include "engine/request_check.h"

namespace sllm {

namespace {

std::unique_ptr<RequestRunner> make_runner(Backend &backend, const EngineOptions &options, Env &env,
                                           RequestRunner::Emit emit) {
    if (backend.facts().embedding.pooling != Pooling::none) {
        return std::make_unique<Embedder>(backend, env, std::move(emit));
    }
    return std::make_unique<Batcher>(backend, options.prefill_tokens, env, std::move(emit));
}

Status has_failed() { return {Code::engine, "the engine has failed and must be destroyed"}; }

}  // namespace

Engine::Engine(std::unique_ptr<Backend> backend, const EngineOptions &options, Env &env)
    : backend_(std::move(backend)), queue_(options.queue), env_(env),
      runner_(make_runner(*backend_, options, env,
                          [this](const sllm_event &event, std::string text, std::string logprobs) {
                              emit(event, std::move(text), std::move(logprobs));
                          })) {
    thread_ = std::thread([this] { run(); });
}

Engine::~Engine() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    backend_->interrupt();
    work_.notify_all();
    events_.close();
    thread_.join();
}

Status Engine::submit(Request request) {
    if (Status s = check_request(request, backend_->facts()); !s.ok()) return s;
    const auto [number, adapter] = std::pair(request.number, request.adapter);
    auto session = std::make_unique<Session>(std::move(request), env_.now_ms());
    {
        const std::lock_guard lock(mutex_);
        if (stopping_) return {Code::closed, "the engine is shutting down"};
        if (failed_) return has_failed();
        if (weights_ != Weights::present) return {Code::wrong_state, "the engine has no weights: attach them first"};
        if (unfinished_.size() >= std::size_t{queue_} + backend_->facts().slots) {
            return {Code::overloaded, "all slots are busy and " + std::to_string(queue_) + " requests wait"};
        }
        if (adapter != 0 && !adapters_.contains(adapter)) {
            return {Code::not_found, "no adapter " + std::to_string(adapter)};
        }
        if (!unfinished_.emplace(number, adapter).second) {
            return {Code::invalid_argument, "request " + std::to_string(number) + " is not finished yet"};
        }
        submitted_.push_back(std::move(session));
    }
    work_.notify_one();
    return {};
}

Status Engine::attach(const std::string &weights_path) {
    {
        const std::lock_guard lock(mutex_);
        if (failed_) return has_failed();
        if (weights_ != Weights::absent) return {Code::wrong_state, "the engine has its weights already"};
        weights_ = Weights::moving;
    }
    const double started = env_.now_ms();
    Status status = backend_->attach(weights_path);
    const std::lock_guard lock(mutex_);
    weights_ = status.ok() ? Weights::present : Weights::absent;
    attach_ms_ = env_.now_ms() - started;
    return status;
}

Status Engine::park(bool keep_weights) {
    {
        std::unique_lock lock(mutex_);
        removal_.wait(lock, [this] { return removed_.empty() || failed_; });
        if (failed_) return has_failed();
        if (!adding_.empty()) return {Code::wrong_state, "an adapter is on its way"};
        if (weights_ == Weights::moving) return {Code::wrong_state, "the engine's weights are on their way"};
        if (!unfinished_.empty()) {
            return {Code::wrong_state, std::to_string(unfinished_.size()) + " requests are unfinished"};
        }
        // From here on no request comes in, so the compute thread leaves the backend alone.
        weights_ = Weights::moving;
        adapters_.clear();
    }
    Status status = backend_->park(keep_weights);
    const std::lock_guard lock(mutex_);
    weights_ = Weights::absent;
    cache_is_gone_ = true;
    return status;
}

double Engine::attach_ms() {
    const std::lock_guard lock(mutex_);
    return attach_ms_;
}

Status Engine::cancel(std::uint64_t request) {
    {
        const std::lock_guard lock(mutex_);
        if (!unfinished_.contains(request)) {
            return {Code::not_found, "no unfinished request " + std::to_string(request)};
        }
        cancelled_.push_back(request);
        // Its step need not be finished. Never two steps in a row, so that cancelling again and again holds nobody up.
        const bool worth_it = computing_ && !aborted_before_ && runner_->dominates_step(request);
        if (worth_it && backend_->facts().abortable) {
            aborting_ = true;
            backend_->abort_decodes(true);
        }
    }
    work_.notify_one();
    return {};
}

Status Engine::hold(std::uint64_t request) {
    const bool embeds = backend_->facts().embedding.pooling != Pooling::none;
    if (embeds) return {Code::invalid_argument, "an engine that embeds holds no requests"};
    return command({request, true, {}, false});
}

Status Engine::extend(std::uint64_t request, std::vector<std::int32_t> tokens, bool go) {
    if (Status s = check_tokens(tokens, backend_->facts()); !s.ok()) return s;
    return command({request, false, std::move(tokens), go});
}

Status Engine::command(HeldCommand command) {
    {
        const std::lock_guard lock(mutex_);
        if (!unfinished_.contains(command.request)) {
            return {Code::not_found, "no unfinished request " + std::to_string(command.request)};
        }
        if (command.go) runner_->hurry(true);  // until its turn comes, between two steps
        held_.push_back(std::move(command));
    }
    work_.notify_one();
    return {};
}

Status Engine::move_kv(KvTransfer transfer) {
    const std::uint64_t bytes = backend_->facts().kv_token_bytes;
    if (bytes == 0) return {Code::model_unsupported, "the engine's KV cache cannot be moved"};
    const bool fits = transfer.from < transfer.to && transfer.to - transfer.from <= limits::kv_move_bytes / bytes;
    if (!fits || (transfer.load && transfer.to > transfer.all)) {
        return {Code::invalid_argument, "rows of " + std::to_string(limits::kv_move_bytes) + " bytes at most"};
    }
    {
        const std::lock_guard lock(mutex_);
        if (!unfinished_.contains(transfer.request)) {
            return {Code::not_found, "no unfinished request " + std::to_string(transfer.request)};
        }
        kv_.push_back(std::move(transfer));
    }
    work_.notify_one();
    return {};
}

Status Engine::add_adapter(const AdapterFiles &files) {
    const auto name = std::to_string(files.adapter);
    {
        const std::lock_guard lock(mutex_);
        if (failed_) return has_failed();
        if (weights_ != Weights::present) return {Code::wrong_state, "the engine has no weights: attach them first"};
        const bool going = std::find(removed_.begin(), removed_.end(), files.adapter) != removed_.end();
        if (files.adapter == 0 || going || adapters_.contains(files.adapter) || adding_.contains(files.adapter)) {
            return {Code::invalid_argument, "the number " + name + " is 0 or an adapter's already"};
        }
        if (adapters_.size() + adding_.size() >= limits::adapters) {
            return {Code::overloaded, "an engine has at most " + std::to_string(limits::adapters) + " adapters"};
        }
        adding_.insert(files.adapter);
    }
    Status status = backend_->add_adapter(files);
    const std::lock_guard lock(mutex_);
    adding_.erase(files.adapter);
    if (status.ok()) adapters_.insert(files.adapter);
    return status;
}

Status Engine::remove_adapter(std::uint32_t adapter) {
    {
        const std::lock_guard lock(mutex_);
        const auto uses_it = [adapter](const auto &one) { return one.second == adapter; };
        if (!adapters_.contains(adapter)) return {Code::not_found, "no adapter " + std::to_string(adapter)};
        if (std::any_of(unfinished_.begin(), unfinished_.end(), uses_it)) {
            return {Code::wrong_state, "unfinished requests use the adapter " + std::to_string(adapter)};
        }
        adapters_.erase(adapter);
        removed_.push_back(adapter);
    }
    work_.notify_one();
    return {};
}

EngineActivity Engine::activity() {
    const std::lock_guard lock(mutex_);
    EngineActivity now{activity_, computing_, activity_.steps + backend_->progress()};
    now.batcher.waiting += static_cast<std::uint32_t>(submitted_.size());
    return now;
}

void Engine::note_step(bool begins) {
    const std::lock_guard lock(mutex_);
    computing_ = begins;
    if (!begins) {
        aborted_before_ = std::exchange(aborting_, false);
        if (aborted_before_) backend_->abort_decodes(false);
    }
    activity_ = runner_->activity();
}

void Engine::run() {
    while (take_work()) {
        events_.wait_for_room();
        note_step(true);
        if (Status s = runner_->step(); !s.ok()) fail(s);
        note_step(false);
    }
}

bool Engine::take_work() {
    std::vector<std::unique_ptr<Session>> submitted;
    std::vector<HeldCommand> held;
    std::vector<KvTransfer> kv;
    std::vector<std::uint64_t> cancelled;
    std::vector<std::uint32_t> removed;
    {
        std::unique_lock lock(mutex_);
        work_.wait(lock, [this] {
            // Unfinished requests may be held, with nothing to compute.
            const bool told = !submitted_.empty() || !held_.empty() || !kv_.empty() || !cancelled_.empty() ||
                              !removed_.empty();
            return stopping_ || told || !runner_->idle();
        });
        if (stopping_) return false;
        submitted = std::exchange(submitted_, {});
        held = std::exchange(held_, {});
        runner_->hurry(false);
        kv = std::exchange(kv_, {});
        cancelled = std::exchange(cancelled_, {});
        removed = removed_;
        if (std::exchange(cache_is_gone_, false)) runner_->forget_cache();
    }
    for (const std::uint32_t adapter : removed) runner_->remove_adapter(adapter);
    if (!removed.empty()) {
        const std::lock_guard lock(mutex_);
        removed_.erase(removed_.begin(), removed_.begin() + static_cast<std::ptrdiff_t>(removed.size()));
        removal_.notify_all();
    }
    for (auto &session : submitted) runner_->add(std::move(session));
    for (const HeldCommand &told : held) {
        if (told.hold) runner_->hold(told.request);
        else runner_->extend(told.request, told.tokens, told.go);
    }
    for (const KvTransfer &transfer : kv) runner_->move_kv(transfer);
    for (const std::uint64_t request : cancelled) runner_->cancel(request);
    return true;
}

void Engine::emit(const sllm_event &event, std::string text, std::string logprobs) {
    if (event.kind == SLLM_EVENT_DONE || event.kind == SLLM_EVENT_ERROR) {
        // Before the event can be seen: whoever sees it may use the number again.
        const std::lock_guard lock(mutex_);
        unfinished_.erase(event.request);
        std::erase(cancelled_, event.request);
        std::erase_if(kv_, [&event](const KvTransfer &told) { return told.request == event.request; });
        std::erase_if(held_, [&event](const HeldCommand &told) { return told.request == event.request; });
    }
    events_.push(event, std::move(text), std::move(logprobs));
}

void Engine::fail(const Status &why) {
    std::vector<std::unique_ptr<Session>> submitted;
    {
        const std::lock_guard lock(mutex_);
        failed_ = true;
        removal_.notify_all();
        if (stopping_) return;
        submitted = std::exchange(submitted_, {});
    }
    for (auto &session : submitted) runner_->add(std::move(session));
    runner_->fail_all(why);
}

}  // namespace sllm
