// Sessions that are held: they compute what they have, get further tokens, and draw none until they are let go. So a
// generation moves: held where it comes from, and held where it goes to.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/batcher.h"

namespace sllm {

Session *Batcher::find(std::uint64_t request) {
    const auto is_it = [request](const auto &session) { return session && session->request.number == request; };
    if (const auto runs = std::find_if(running_.begin(), running_.end(), is_it); runs != running_.end()) {
        return runs->get();
    }
    const auto waits = std::find_if(waiting_.begin(), waiting_.end(), is_it);
    return waits == waiting_.end() ? nullptr : waits->get();
}

std::uint32_t Batcher::left_of(const Session &session) const {
    if (session.awaits_kv) return 0;
    const auto all = static_cast<std::uint32_t>(session.sequence.size());
    // Where one is held that runs here, its next token would be drawn from the last one's row. One that comes in has
    // that row computed too: with the tokens to come it is one of them, and without any it is computed once more.
    const bool keeps_last = session.held && (session.announced || !backend_.facts().kv.cuttable);
    const std::uint32_t wanted = keeps_last ? all - 1 : all;
    return wanted - std::min(wanted, kv_.length(session.slot));
}

bool Batcher::idle() const {
    const auto works = [this](const auto &session) { return left_of(*session) > 0; };
    if (std::any_of(running_.begin(), running_.end(), works)) return false;
    if (waiting_.empty()) return true;
    // Whoever waits behind nothing but held ones has to wait.
    const Session &next = *waiting_.front();
    return !running_.empty() && (!has_room_for(next) || !kv_.find(next.sequence, next.request.adapter));
}

void Batcher::hold(std::uint64_t request) {
    Session *session = find(request);
    if (session == nullptr) return;
    session->held = true;
    sllm_event event = event_of(*session, SLLM_EVENT_HELD);
    event.index = session->output_tokens();
    event.prompt_tokens = session->prompt_tokens();
    emit_(event, {}, {});
}

void Batcher::extend(std::uint64_t request, std::span<const std::int32_t> tokens, bool go) {
    Session *session = find(request);
    if (session == nullptr) return;
    if (!session->held) return fail(*session, {Code::wrong_state, "the request is not held"});
    if (Status s = append(*session, tokens); !s.ok()) return fail(*session, s);
    if (go) let_go(*session);
    report_held();
}

void Batcher::let_go(Session &session) {
    session.held = false;
    session.hurries = true;
    const bool lacks_rows = std::exchange(session.awaits_kv, false);
    // One that waits for a slot tells when it has it.
    if (!has_slot(session)) return;
    if (lacks_rows) backend_.cut(session.slot, 0);
    const auto last = static_cast<std::uint32_t>(session.sequence.size()) - 1;
    if (kv_.length(session.slot) > last) {
        backend_.cut(session.slot, last);
        kv_.cut(session.slot, last);
    }
    if (!session.announced) announce(session);
    std::erase(running_, nullptr);
}

bool Batcher::has_slot(const Session &session) const {
    const auto is_it = [&session](const auto &one) { return one.get() == &session; };
    return std::any_of(running_.begin(), running_.end(), is_it);
}

bool Batcher::make_haste() {
    const auto hurries = [](const auto &session) { return session->hurries && !session->held; };
    // Never two steps in a row, so that prompts get on however many streams come in.
    hastened_ = !hastened_ && std::any_of(running_.begin(), running_.end(), hurries);
    return hastened_;
}

bool Batcher::can_wait(const Group &group, const MicroBatch &call) const {
    return std::all_of(call.tokens.begin(), call.tokens.end(), [&](const BatchToken &token) {
        for (std::size_t i = 0; i < group.parts.size() && !token.filler; i++) {
            if (group.parts[i].slot == token.slot) return running_[group.owners[i]] && running_[group.owners[i]]->held;
        }
        return token.filler;
    });
}

void Batcher::leave_rest(const Group &group, const std::vector<std::size_t> &rows) {
    for (const BatchPart &part : group.parts) {
        const std::size_t done = rows[part.slot];
        computed_tokens_ += done;
        if (done == part.tokens.size()) continue;
        kv_.cut(part.slot, part.position + static_cast<std::uint32_t>(done));
        left_some_ = true;
    }
}

Status Batcher::append(Session &session, std::span<const std::int32_t> tokens) {
    if (tokens.empty()) return {};
    if (session.announced) return {Code::wrong_state, "only a request that was submitted held takes tokens"};
    const bool runs = has_slot(session);
    const auto ends = [this](std::int32_t token) { return backend_.ends_generation(token); };
    if (!session.request.ignore_eos && std::any_of(tokens.begin(), tokens.end(), ends)) {
        return {Code::invalid_argument, "the resumed output holds a token that ends it"};
    }
    if (session.sequence.size() + tokens.size() > backend_.facts().context_tokens) {
        return {Code::context_overflow, "prompt and resumed output have more tokens than the context"};
    }
    for (const std::int32_t token : tokens) {
        if (runs) {
            if (Status s = backend_.accept(session.slot, token); !s.ok()) return s;
            kv_.grow(session.slot);
        }
        session.sequence.push_back(token);
    }
    if (runs) replay_text(session);
    return {};
}

void Batcher::replay_text(Session &session) {
    for (; session.replayed < session.output_tokens(); session.replayed++) {
        std::string piece;
        backend_.append_piece(session.slot, session.sequence[session.prompt_tokens() + session.replayed], &piece);
        session.resumed_text += session.text.push(piece);
    }
}

bool Batcher::announce(Session &session) {
    session.announced = true;
    sllm_event event = event_of(session, SLLM_EVENT_STARTED);
    event.prompt_tokens = session.prompt_tokens();
    event.cached_tokens = session.cached_tokens();
    emit_(event, std::move(session.resumed_text), {});
    if (session.text.stopped()) {
        finish(session, SLLM_FINISH_STOP, {});
    } else if (session.output_tokens() >= session.output_limit) {
        finish(session, SLLM_FINISH_LENGTH, session.text.finish());
    } else {
        return true;
    }
    return false;
}

void Batcher::report_held() {
    for (const auto &session : running_) {
        if (!session || !session->held || session->announced || session->awaits_kv) continue;
        // The row that is left for the step after it is let go counts as computed.
        const bool lacks_last = !backend_.facts().kv.cuttable && left_of(*session) == 0;
        const std::uint32_t computed = kv_.length(session->slot) + (lacks_last ? 1 : 0);
        if (computed < session->prompt_tokens()) continue;
        const std::uint32_t output = computed - session->prompt_tokens();
        if (std::exchange(session->told_held, output) == output) continue;
        sllm_event event = event_of(*session, SLLM_EVENT_HELD);
        event.index = output;
        event.prompt_tokens = session->prompt_tokens();
        event.cached_tokens = session->found_tokens;
        emit_(event, {}, {});
    }
}

}  // namespace sllm
