// Admission, preemption, steps and ends.
#include "engine/batcher.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/limits.h"

namespace sllm {

Batcher::Batcher(Backend &backend, std::uint32_t prefill_tokens, Env &env, Emit emit)
    : backend_(backend), limits_{backend.facts().batch_tokens, prefill_tokens, limits::held_tokens}, env_(env),
      emit_(std::move(emit)), kv_(backend.facts().slots, backend.facts().kv) {}

void Batcher::cancel(std::uint64_t request) {
    if (Session *session = find(request)) fail(*session, {Code::cancelled, "the request was cancelled"});
}

void Batcher::fail(Session &session, const Status &why) {
    const auto is_it = [&session](const auto &one) { return one.get() == &session; };
    if (std::any_of(running_.begin(), running_.end(), is_it)) {
        give_up(session, why);
        std::erase(running_, nullptr);
    } else {
        const std::uint64_t request = session.request.number;
        std::erase_if(waiting_, is_it);
        emit_error(request, why);
    }
}

Status Batcher::step() {
    admit();
    make_room();
    Status status = running_.empty() ? Status() : compute();
    heaviest_ = no_request;
    std::erase(running_, nullptr);
    report_held();
    return status.code() == Code::cancelled ? Status() : status;
}

RunnerActivity Batcher::activity() const {
    const auto running = static_cast<std::uint32_t>(running_.size());
    const auto waiting = static_cast<std::uint32_t>(waiting_.size());
    return {running, waiting, kv_.spoken_for(), steps_, computed_tokens_, last_step_tokens_};
}

void Batcher::admit() {
    while (!waiting_.empty() && has_room_for(*waiting_.front())) {
        const Session &next = *waiting_.front();
        const std::optional<KvTable::Place> place = kv_.find(next.sequence, next.request.adapter);
        if (!place) return;
        std::unique_ptr<Session> session = std::move(waiting_.front());
        waiting_.pop_front();
        if (start(*session, place_of(*session, *place))) running_.push_back(std::move(session));
    }
}

bool Batcher::has_room_for(const Session &session) const {
    // Everything that is not in use can be forgotten. Some tokens ahead are kept free for each of them, so that no
    // request is preempted for the one that has just come.
    const BackendFacts &facts = backend_.facts();
    const auto wanted = [&facts](const Session &one) {
        return std::min<std::uint64_t>(one.sequence.size() + limits::kv_tokens_ahead, facts.context_tokens);
    };
    std::uint64_t total = wanted(session);
    for (const auto &other : running_) total += wanted(*other);
    return total <= facts.kv.kv_tokens;
}

Status Batcher::begin(Session &session) {
    const auto ends = [this](std::int32_t token) { return backend_.ends_generation(token); };
    const std::vector<std::int32_t> &resumed = session.request.resume;
    if (!session.request.ignore_eos && std::any_of(resumed.begin(), resumed.end(), ends)) {
        return {Code::invalid_argument, "the resumed output holds a token that ends it"};
    }
    return backend_.begin(session.slot, session.request.sampling, session.history());
}

bool Batcher::start(Session &session, const KvTable::Place &place) {
    const bool again = std::exchange(session.started, true);
    session.slot = place.slot;
    if (Status s = begin(session); !s.ok()) {
        backend_.end(session.slot);
        emit_error(session.request.number, s);
        return false;
    }
    if (place.slot == place.source) {
        backend_.cut(place.slot, place.reused);
    } else {
        backend_.cut(place.slot, 0);
        backend_.share(place.source, place.slot, place.reused);
    }
    kv_.take(place, session.sequence, session.request.adapter);
    if (session.announced) return true;  // it was preempted: nobody outside knows

    if (!again) {
        session.started_ms = env_.now_ms();
        session.found_tokens = place.reused;
        const std::uint32_t room = backend_.facts().context_tokens - session.prompt_tokens();
        const std::uint64_t asked = session.request.max_tokens;
        session.output_limit = asked == 0 ? room : static_cast<std::uint32_t>(std::min<std::uint64_t>(asked, room));
    }
    replay_text(session);
    return session.held || announce(session);
}

void Batcher::make_room() {
    while (kv_.overfull()) {
        if (const std::optional<std::uint32_t> slot = kv_.oldest_free()) {
            backend_.cut(*slot, 0);
            kv_.forget(*slot);
        } else {
            preempt_youngest();
        }
    }
}

void Batcher::preempt_youngest() {
    // It is computed again later, from its tokens. The oldest never gets here: one sequence always fits.
    std::unique_ptr<Session> youngest = std::move(running_.back());
    running_.pop_back();
    youngest->awaits_kv = false;  // what has come of it is gone
    leave(*youngest);
    waiting_.push_front(std::move(youngest));
}

Status Batcher::compute() {
    std::vector<std::uint32_t> left, held;
    const bool hastens = make_haste();
    const bool alone = hastens && backend_.facts().shape.fixed;  // who hurries has calls of its own: a step then
    for (const auto &session : running_) {
        const std::uint32_t wanted = left_of(*session);
        const bool waits = hastens && !session->hurries && (alone || session->held || wanted > 1);
        left.push_back(session->held || waits ? 0 : wanted);
        held.push_back(session->held && !waits ? wanted : 0);
    }
    const bool has_streams = std::any_of(left.begin(), left.end(), [](std::uint32_t n) { return n == 1; });
    const StepLimits limits = shares_.limits(limits_, running_.size(), has_streams);
    const std::vector<std::uint32_t> taken = plan_step(left, held, limits, steps_);
    StepRecord step;
    for (std::size_t i = 0; i < taken.size(); i++) {
        (held[i] > 0 ? step.held : left[i] == 1 ? step.streams : step.prompts) += taken[i];
    }
    last_step_tokens_ = step.tokens();
    if (last_step_tokens_ == 0) return {};
    steps_++;
    const double began_ms = env_.now_ms();
    left_some_ = alone;
    Status status = compute(left, taken);
    step.ms = env_.now_ms() - began_ms;
    if (!left_some_ && status.ok()) shares_.observe(step);
    return status;
}

Status Batcher::compute(const std::vector<std::uint32_t> &left, const std::vector<std::uint32_t> &taken) {
    const auto heaviest = std::max_element(taken.begin(), taken.end());
    if (2 * *heaviest >= last_step_tokens_) {
        heaviest_ = running_[static_cast<std::size_t>(heaviest - taken.begin())]->request.number;
    }

    std::map<std::uint32_t, Group> groups;  // by adapter: a call computes with one
    for (std::size_t i = 0; i < taken.size(); i++) {
        if (taken[i] == 0) continue;
        Group &group = groups[running_[i]->request.adapter];
        const std::uint32_t from = kv_.length(running_[i]->slot);
        const std::span<const std::int32_t> sequence(running_[i]->sequence);
        // Nothing is drawn of a held one: its last token is left for the step after it is let go.
        group.parts.push_back({running_[i]->slot, from, sequence.subspan(from, taken[i]), taken[i] == left[i],
                               running_[i]->hurries});
        group.owners.push_back(i);
    }
    // The adapter in use comes first, which saves a change.
    const std::uint32_t first = adapter_;
    if (const auto same = groups.find(first); same != groups.end()) {
        if (Status s = compute_group(first, same->second); !s.ok()) return s;
    }
    for (const auto &[adapter, group] : groups) {
        if (adapter == first) continue;
        if (Status s = compute_group(adapter, group); !s.ok()) return s;
    }
    return {};
}

Status Batcher::compute_group(std::uint32_t adapter, const Group &group) {
    if (Status s = backend_.use_adapter(adapter); !s.ok()) return s;
    adapter_ = adapter;
    std::vector<std::uint32_t> lengths(backend_.facts().slots + 1, 0);
    for (std::uint32_t slot = 0; slot + 1 < lengths.size(); slot++) lengths[slot] = kv_.length(slot);
    for (const auto &one : running_) {
        if (one && one->awaits_kv) lengths[one->slot] = one->kv_cells;
    }
    const std::vector<MicroBatch> batches = shape_batches(group.parts, backend_.facts().shape, lengths);
    for (const BatchPart &part : group.parts) kv_.computed(part.slot, part.tokens);
    std::vector<std::size_t> rows(lengths.size(), 0);  // by slot
    for (const MicroBatch &batch : batches) {
        if (hurry_ && can_wait(group, batch)) continue;
        if (Status s = backend_.decode(batch.tokens); !s.ok()) {
            if (s.code() == Code::cancelled) take_back(group);
            return s;
        }
        for (const BatchToken &token : batch.tokens) rows[token.slot] += token.filler ? 0 : 1;
        for (const auto &[part, index] : batch.outputs) {
            draw_token(*running_[group.owners[part]], index);
        }
    }
    leave_rest(group, rows);
    return {};
}

void Batcher::take_back(const Group &group) {
    for (const BatchPart &part : group.parts) {
        backend_.cut(part.slot, part.position);
        kv_.cut(part.slot, part.position);
    }
}

void Batcher::draw_token(Session &session, std::size_t index) {
    const auto position = static_cast<std::uint32_t>(session.sequence.size());
    const std::int32_t token = backend_.sample(session.slot, index, position);
    if (token < 0) {
        return give_up(session, {Code::invalid_argument, "the constraint leaves no token of the vocabulary"});
    }
    const std::uint32_t told = session.request.sampling.logprobs;
    take_token(session, token, told == 0 ? std::string() : backend_.logprobs(index, token, told - 1));
}

void Batcher::take_token(Session &session, std::int32_t token, std::string logprobs) {
    const double now = env_.now_ms();
    if (session.first_token_ms == 0) session.first_token_ms = now;
    session.last_token_ms = now;
    session.hurries = false;
    if (backend_.ends_generation(token) && !session.request.ignore_eos) {
        finish(session, SLLM_FINISH_STOP, session.text.finish());
        return;
    }
    if (Status s = backend_.accept(session.slot, token); !s.ok()) return give_up(session, s);
    std::string piece;
    backend_.append_piece(session.slot, token, &piece);
    sllm_event event = event_of(session, SLLM_EVENT_TOKEN);
    event.token = token;
    event.index = session.output_tokens();
    session.sequence.push_back(token);
    kv_.grow(session.slot);
    emit_(event, session.text.push(piece), std::move(logprobs));
    if (session.text.stopped()) {
        finish(session, SLLM_FINISH_STOP, {});
    } else if (session.output_tokens() == session.output_limit) {
        finish(session, SLLM_FINISH_LENGTH, session.text.finish());
    }
}

void Batcher::finish(Session &session, std::int32_t reason, std::string text) {
    sllm_event event = event_of(session, SLLM_EVENT_DONE);
    event.status = reason;
    event.index = session.output_tokens();
    event.prompt_tokens = session.prompt_tokens();
    event.cached_tokens = session.cached_tokens();
    event.queue_ms = session.started_ms - session.submitted_ms;
    if (session.first_token_ms > 0) event.prefill_ms = session.first_token_ms - session.started_ms;
    event.decode_ms = session.last_token_ms - session.first_token_ms;
    leave(session);
    emit_(event, std::move(text), {});
}

void Batcher::give_up(Session &session, const Status &why) {
    const std::uint64_t request = session.request.number;
    leave(session);
    emit_error(request, why);
}

void Batcher::leave(Session &session) {
    backend_.end(session.slot);
    kv_.release(session.slot);
    const auto owned = std::find_if(running_.begin(), running_.end(), [&](auto &one) { return one.get() == &session; });
    if (owned != running_.end()) owned->reset();
}

void Batcher::fail_all(const Status &why) {
    std::vector<std::uint64_t> requests;
    for (const auto &session : running_) {
        if (session) requests.push_back(session->request.number);
    }
    for (const auto &session : waiting_) requests.push_back(session->request.number);
    running_.clear();
    waiting_.clear();
    for (const std::uint64_t request : requests) emit_error(request, why);
}

void Batcher::remove_adapter(std::uint32_t adapter) {
    kv_.forget_adapter(adapter);
    if (adapter_ == adapter) adapter_ = 0;
    backend_.remove_adapter(adapter);
}

void Batcher::emit_error(std::uint64_t request, const Status &why) {
    emit_(error_event(request, why), why.message(), {});
}

}  // namespace sllm
