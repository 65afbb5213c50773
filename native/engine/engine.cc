// The engine's queue and its compute thread.
#include "engine/engine.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "core/limits.h"
#include "engine/batch_plan.h"
#include "engine/request_check.h"

namespace sllm {

namespace {

sllm_event event_of(const Session &session, std::uint32_t kind) {
    sllm_event event{};
    event.request = session.request.number;
    event.kind = kind;
    return event;
}

Status has_failed() { return {Code::engine, "the engine has failed and must be destroyed"}; }

}  // namespace

Engine::Engine(std::unique_ptr<Backend> backend, std::uint32_t queue, Env &env)
    : backend_(std::move(backend)), queue_(queue), env_(env) {
    for (std::uint32_t slot = backend_->facts().slots; slot > 0; slot--) free_slots_.push_back(slot - 1);
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
    const std::uint64_t number = request.number;
    auto session = std::make_unique<Session>(std::move(request), env_.now_ms());
    {
        const std::lock_guard lock(mutex_);
        if (stopping_) return {Code::closed, "the engine is shutting down"};
        if (failed_) return has_failed();
        if (weights_ != Weights::present) return {Code::wrong_state, "the engine has no weights: attach them first"};
        if (unfinished_.size() >= std::size_t{queue_} + backend_->facts().slots) {
            return {Code::overloaded, "all slots are busy and " + std::to_string(queue_) + " requests wait"};
        }
        if (!unfinished_.emplace(number, false).second) {
            return {Code::invalid_argument, "request " + std::to_string(number) + " is not finished yet"};
        }
        waiting_.push_back(std::move(session));
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
        const std::lock_guard lock(mutex_);
        if (failed_) return has_failed();
        if (weights_ == Weights::moving) return {Code::wrong_state, "the engine's weights are on their way"};
        if (!unfinished_.empty()) {
            return {Code::wrong_state, std::to_string(unfinished_.size()) + " requests are unfinished"};
        }
        // From here on no request comes in, so the compute thread leaves the backend alone.
        weights_ = Weights::moving;
    }
    Status status = backend_->park(keep_weights);
    const std::lock_guard lock(mutex_);
    weights_ = Weights::absent;
    return status;
}

double Engine::attach_ms() {
    const std::lock_guard lock(mutex_);
    return attach_ms_;
}

Status Engine::cancel(std::uint64_t request) {
    {
        const std::lock_guard lock(mutex_);
        const auto found = unfinished_.find(request);
        if (found == unfinished_.end()) return {Code::not_found, "no unfinished request " + std::to_string(request)};
        found->second = true;
    }
    work_.notify_one();
    return {};
}

void Engine::run() {
    while (wait_for_work()) {
        events_.wait_for_room();
        drop_cancelled();
        admit();
        if (sessions_.empty()) continue;
        if (Status s = step(); !s.ok()) fail_all(s);
        std::erase(sessions_, nullptr);
    }
}

bool Engine::wait_for_work() {
    std::unique_lock lock(mutex_);
    work_.wait(lock, [this] { return stopping_ || !sessions_.empty() || !waiting_.empty(); });
    return !stopping_;
}

void Engine::drop_cancelled() {
    std::vector<std::unique_ptr<Session>> cancelled;
    {
        const std::lock_guard lock(mutex_);
        const auto take = [&](auto &from) {
            for (auto &session : from) {
                if (unfinished_.at(session->request.number)) cancelled.push_back(std::move(session));
            }
            std::erase(from, nullptr);
        };
        take(sessions_);
        const std::size_t with_slot = cancelled.size();
        for (std::size_t i = 0; i < with_slot; i++) {
            backend_->end(cancelled[i]->slot);
            free_slots_.push_back(cancelled[i]->slot);
        }
        take(waiting_);
    }
    for (const auto &session : cancelled) {
        if (forget(session->request.number)) {
            push_error(session->request.number, {Code::cancelled, "the request was cancelled"});
        }
    }
}

void Engine::admit() {
    const BackendFacts &facts = backend_->facts();
    while (!free_slots_.empty()) {
        std::unique_ptr<Session> session;
        {
            const std::lock_guard lock(mutex_);
            if (waiting_.empty()) return;
            session = std::move(waiting_.front());
            waiting_.pop_front();
        }
        std::sort(free_slots_.begin(), free_slots_.end(), std::greater<>());
        session->slot = free_slots_.back();
        session->started_ms = env_.now_ms();
        const std::uint32_t room = facts.context_tokens - session->prompt_tokens();
        const std::uint64_t asked = session->request.max_tokens;
        session->output_limit = asked == 0 ? room : static_cast<std::uint32_t>(std::min<std::uint64_t>(asked, room));
        const TokenHistory history{session->request.prompt, {}};
        if (Status s = backend_->begin(session->slot, session->request.sampling, history); !s.ok()) {
            if (forget(session->request.number)) push_error(session->request.number, s);
            continue;
        }
        free_slots_.pop_back();
        sllm_event event = event_of(*session, SLLM_EVENT_STARTED);
        event.prompt_tokens = session->prompt_tokens();
        events_.push(event, {});
        sessions_.push_back(std::move(session));
    }
}

Status Engine::step() {
    const BatchPlan plan = plan_batch(sessions_, backend_->facts().batch_tokens);
    if (Status s = backend_->decode(plan.tokens); !s.ok()) return s;
    for (const auto &[session, index] : plan.outputs) {
        const std::uint32_t position = session->prompt_tokens() + session->output_tokens;
        const std::int32_t token = backend_->sample(session->slot, index, position);
        if (token < 0) {
            give_up(*session, {Code::invalid_argument, "the constraint leaves no token of the vocabulary"});
            continue;
        }
        const std::uint32_t told = session->request.sampling.logprobs;
        take_token(*session, token, told == 0 ? std::string() : backend_->logprobs(index, token, told - 1));
    }
    return {};
}

void Engine::take_token(Session &session, std::int32_t token, std::string logprobs) {
    const double now = env_.now_ms();
    if (session.output_tokens == 0) session.first_token_ms = now;
    session.last_token_ms = now;
    if (backend_->ends_generation(token) && !session.request.ignore_eos) {
        finish(session, SLLM_FINISH_STOP, session.text.finish());
        return;
    }
    if (Status s = backend_->accept(session.slot, token); !s.ok()) return give_up(session, s);
    session.last_token = token;
    std::string piece;
    backend_->append_piece(session.slot, token, &piece);
    sllm_event event = event_of(session, SLLM_EVENT_TOKEN);
    event.token = token;
    event.index = session.output_tokens++;
    events_.push(event, session.text.push(piece), std::move(logprobs));
    if (session.text.stopped()) {
        finish(session, SLLM_FINISH_STOP, {});
    } else if (session.output_tokens == session.output_limit) {
        finish(session, SLLM_FINISH_LENGTH, session.text.finish());
    }
}

void Engine::finish(Session &session, std::int32_t reason, std::string text) {
    sllm_event event = event_of(session, SLLM_EVENT_DONE);
    event.status = reason;
    event.index = session.output_tokens;
    event.prompt_tokens = session.prompt_tokens();
    event.queue_ms = session.started_ms - session.submitted_ms;
    event.prefill_ms = session.first_token_ms - session.started_ms;
    event.decode_ms = session.last_token_ms - session.first_token_ms;
    if (forget(event.request)) events_.push(event, std::move(text));
    leave(session);
}

void Engine::give_up(Session &session, const Status &why) {
    if (forget(session.request.number)) push_error(session.request.number, why);
    leave(session);
}

void Engine::leave(Session &session) {
    backend_->end(session.slot);
    free_slots_.push_back(session.slot);
    std::find_if(sessions_.begin(), sessions_.end(), [&](auto &owned) { return owned.get() == &session; })->reset();
}

void Engine::fail_all(const Status &why) {
    std::deque<std::unique_ptr<Session>> waiting;
    {
        const std::lock_guard lock(mutex_);
        failed_ = true;
        waiting = std::exchange(waiting_, {});
        if (stopping_) return;
    }
    for (const auto &session : sessions_) {
        if (session && forget(session->request.number)) push_error(session->request.number, why);
    }
    for (const auto &session : waiting) {
        if (forget(session->request.number)) push_error(session->request.number, why);
    }
    sessions_.clear();
}

void Engine::push_error(std::uint64_t request, const Status &why) {
    sllm_event event{};
    event.request = request;
    event.kind = SLLM_EVENT_ERROR;
    event.status = static_cast<std::int32_t>(why.code());
    events_.push(event, why.message());
}

bool Engine::forget(std::uint64_t request) {
    const std::lock_guard lock(mutex_);
    return unfinished_.erase(request) == 1;
}

}  // namespace sllm
