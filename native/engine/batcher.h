// The life of requests on the compute thread: waiting, in a slot, preempted, ended. Computes step after step over all
// slots. Not thread-safe: everything here happens on one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/batch_plan.h"
#include "engine/kv_table.h"
#include "engine/micro_batch.h"
#include "engine/request_runner.h"
#include "engine/session.h"
#include "engine/step_shares.h"
#include "io/env.h"
#include "sllm/sllm.h"

namespace sllm {

class Batcher : public RequestRunner {
public:
    // prefill_tokens: of a step for prompts while streams run, at least 1 and at most, see step_shares.h.
    Batcher(Backend &backend, std::uint32_t prefill_tokens, Env &env, Emit emit);

    bool idle() const override;
    void add(std::unique_ptr<Session> session) override { waiting_.push_back(std::move(session)); }
    void cancel(std::uint64_t request) override;
    void hold(std::uint64_t request) override;
    void extend(std::uint64_t request, std::span<const std::int32_t> tokens, bool go) override;
    void hurry(bool on) override { hurry_ = on; }
    void move_kv(const KvTransfer &transfer) override;
    Status step() override;
    bool dominates_step(std::uint64_t request) const override { return heaviest_.load() == request; }
    void fail_all(const Status &why) override;
    void remove_adapter(std::uint32_t adapter) override;
    void forget_cache() override {
        kv_.clear();
        adapter_ = 0;
    }
    RunnerActivity activity() const override;

private:
    // Without one that has ended.
    Session *find(std::uint64_t request);
    void admit();
    // Tokens that the next step may compute of a running session.
    std::uint32_t left_of(const Session &session) const;
    bool has_room_for(const Session &session) const;
    // INVALID_ARGUMENT when the resumed output cannot be that of such a request.
    Status begin(Session &session);
    // Whoever awaits rows reuses none.
    static KvTable::Place place_of(const Session &session, const KvTable::Place &found) {
        return session.awaits_kv ? KvTable::Place{found.slot, found.slot, 0} : found;
    }
    // Whether the session goes on: it may end at once.
    bool start(Session &session, const KvTable::Place &place);
    // The text of resumed tokens that it is not known of yet. The session has a slot.
    void replay_text(Session &session);
    // Tells that it starts. Whether the session goes on: what it resumes may be all of it.
    bool announce(Session &session);
    // More resumed output. INVALID_ARGUMENT when it cannot be that of such a request.
    Status append(Session &session, std::span<const std::int32_t> tokens);
    // A held session draws tokens from the next step on.
    void let_go(Session &session);
    bool has_slot(const Session &session) const;
    // digest: of what was saved.
    Status save_kv(const Session &session, const KvTransfer &transfer, std::uint64_t *digest);
    Status load_kv(Session &session, const KvTransfer &transfer);
    // Whether the step to come has no tokens but those of streams, because the reader of one that was let go waits. In
    // a fixed shape it has no other stream's either, so that its second token comes with theirs.
    bool make_haste();
    // Tells how far held sessions are.
    void report_held();
    void make_room();
    void preempt_youngest();
    // What one call of a step computes.
    struct Group {
        std::vector<BatchPart> parts;
        std::vector<std::size_t> owners;  // of the parts, into running_
    };

    Status compute();
    // The same, told how many tokens of which sequences the step takes.
    Status compute(const std::vector<std::uint32_t> &left, const std::vector<std::uint32_t> &taken);
    Status compute_group(std::uint32_t adapter, const Group &group);
    // The group's call was given up: its tokens come again with the next step.
    void take_back(const Group &group);
    // Whether a call of the group can come with a later step, because somebody waits for the next one: it is of a held
    // session alone.
    bool can_wait(const Group &group, const MicroBatch &call) const;
    // Only so many rows of each part were computed; the others come again with the next step.
    void leave_rest(const Group &group, const std::vector<std::size_t> &rows);
    // The output of a call at this index becomes the session's next token.
    void draw_token(Session &session, std::size_t index);
    void take_token(Session &session, std::int32_t token, std::string logprobs);
    // Each of the first two ends a request, its event comes last; leave gives its slot back.
    void finish(Session &session, std::int32_t reason, std::string text);
    void give_up(Session &session, const Status &why);
    // Gives up a session wherever it is, between two steps.
    void fail(Session &session, const Status &why);
    void leave(Session &session);
    void emit_error(std::uint64_t request, const Status &why);

    Backend &backend_;
    StepLimits limits_;
    StepShares shares_;
    Env &env_;
    const Emit emit_;
    KvTable kv_;
    std::uint64_t steps_ = 0;
    std::uint64_t computed_tokens_ = 0;
    std::uint32_t last_step_tokens_ = 0;
    bool hastened_ = false;  // the last step
    std::atomic<bool> hurry_{false};
    bool left_some_ = false;  // the step under way, of what it was to take
    static constexpr std::uint64_t no_request = UINT64_MAX;
    std::atomic<std::uint64_t> heaviest_{no_request};  // the request with half or more of the step's tokens
    std::uint32_t adapter_ = 0;  // that the backend computes with
    // Both in the order the requests came, and all running ones came before all waiting ones.
    std::vector<std::unique_ptr<Session>> running_;  // null: ended in this step
    std::deque<std::unique_ptr<Session>> waiting_;
};

}  // namespace sllm
