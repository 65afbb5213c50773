// What a step computes, in which calls, and what slots keep and share: the pure parts of the batcher.
#include <algorithm>
#include <numeric>
#include <random>

#include "engine/batch_plan.h"
#include "engine/kv_table.h"
#include "engine/micro_batch.h"
#include "test/harness.h"

namespace {

using sllm::BatchPart;
using sllm::KvTable;
using sllm::MicroBatch;
using sllm::StepLimits;
using Tokens = std::vector<std::int32_t>;
using Counts = std::vector<std::uint32_t>;

Counts plan(const Counts &left, StepLimits limits, std::uint64_t turn = 0) {
    return plan_step(left, Counts(left.size(), 0), limits, turn);
}

Tokens range(std::int32_t from, std::int32_t to) {
    Tokens all(static_cast<std::size_t>(to - from));
    std::iota(all.begin(), all.end(), from);
    return all;
}

// A sequence in a slot, computed in full.
void hold(KvTable &table, std::uint32_t slot, const Tokens &tokens) {
    Tokens sequence = tokens;
    sequence.push_back(-1);  // the one that is sampled next
    const auto place = table.find(sequence);
    CHECK_EQ(place->slot, slot);
    table.take(*place, sequence);
    table.computed(slot, std::span(tokens).subspan(place->reused));
}

const sllm::BatchShape fixed{true, true};

}  // namespace

TEST("plan: running streams are part of every step, and prompts take the rest, the shortest first") {
    CHECK(plan({1, 1, 1}, {8, 4}) == Counts({1, 1, 1}));
    CHECK(plan({100, 1, 30}, {64, 20}) == Counts({5, 1, 15}));
    CHECK(plan({100, 4, 1, 50}, {64, 20}) == Counts({5, 4, 1, 11}));
    CHECK(plan({50, 1, 100}, {64, 20}) == Counts({20, 1, 0}));
    // Of equal ones the first.
    CHECK(plan({50, 50, 1, 50}, {64, 20}) == Counts({20, 0, 1, 0}));
    // Nobody waits for these: a whole step of prompt.
    CHECK(plan({100, 90}, {64, 20}) == Counts({16, 48}));
    CHECK(plan({100, 10}, {64, 20}) == Counts({54, 10}));
    CHECK(plan({1, 1, 9}, {2, 20}) == Counts({1, 1, 0}));
    CHECK(plan({1, 9, 5}, {2, 20}) == Counts({1, 1, 0}));
}

TEST("plan: held sequences share what is left over, and little of it while anything else runs") {
    const StepLimits limits{64, 20, 6};
    CHECK(plan_step(Counts{1, 0, 0}, Counts{0, 100, 2}, limits, 0) == Counts({1, 4, 2}));
    CHECK(plan_step(Counts{100, 0}, Counts{0, 100}, limits, 0) == Counts({64, 0}));
    CHECK(plan_step(Counts{1, 30, 0}, Counts{0, 0, 100}, limits, 0) == Counts({1, 20, 6}));
    CHECK(plan_step(Counts{0, 0}, Counts{100, 100}, limits, 0) == Counts({32, 32}));
    CHECK(plan_step(Counts{0, 0}, Counts{0, 0}, limits, 0) == Counts({0, 0}));
}

TEST("plan: the prompt that came first gets its quarter however many shorter ones come") {
    std::uint32_t first = 2'000;
    std::uint32_t steps = 0;
    for (; first > 60; steps++) {
        const Counts taken = plan({first, 1, 60, 60}, {100, 40});
        CHECK(taken == Counts({10, 1, 30, 0}));
        first -= taken[0];
    }
    CHECK_EQ(steps, 194u);
    CHECK(plan({first, 1, 60, 60}, {100, 40}) == Counts({40, 1, 0, 0}));
}

TEST("plan: where not every held sequence gets a part, each is first in turn and none starves") {
    Counts held(5, 40);
    for (std::uint64_t turn = 0; turn < 100; turn++) {
        const Counts taken = sllm::plan_step(Counts(5, 0), held, {2, 2, 2}, turn);
        for (std::size_t i = 0; i < held.size(); i++) held[i] -= taken[i];
        const auto [least, most] = std::minmax_element(held.begin(), held.end());
        CHECK(*most - *least <= 2);
        if (*most <= 2) return;
    }
    CHECK(false);
}

TEST("plan: random loads are never exceeded, never left idle, and never starve a stream") {
    std::mt19937_64 random(test::seed());
    for (int round = 0; round < 2'000; round++) {
        Counts left(1 + random() % 12);
        for (auto &n : left) n = static_cast<std::uint32_t>(random() % 3 == 0 ? 1 : 1 + random() % 300);
        const StepLimits limits{static_cast<std::uint32_t>(left.size() + random() % 100),
                                static_cast<std::uint32_t>(1 + random() % 100)};
        const Counts taken = plan(left, limits, random());
        const auto streams = static_cast<std::uint32_t>(std::count(left.begin(), left.end(), 1u));
        std::uint32_t prompts = 0;
        std::uint32_t wanted = 0;
        for (std::size_t i = 0; i < left.size(); i++) {
            CHECK(taken[i] <= left[i]);
            if (left[i] == 1) CHECK_EQ(taken[i], 1u);
            if (left[i] > 1) prompts += taken[i], wanted += left[i];
        }
        std::uint32_t budget = limits.batch_tokens - streams;
        if (streams > 0) budget = std::min(budget, limits.prefill_tokens);
        CHECK_EQ(prompts, std::min(budget, wanted));
    }
}

TEST("shape: a free shape is one call with everything") {
    const Tokens one{7};
    const Tokens three{1, 2, 3};
    const std::vector<BatchPart> parts{{2, 9, one, true}, {0, 0, three, false}};
    const auto batches = shape_batches(parts, {}, {});
    CHECK_EQ(batches.size(), 1u);
    CHECK_EQ(batches[0].tokens.size(), 4u);
    CHECK_EQ(batches[0].tokens[0].position, 9u);
    CHECK_EQ(batches[0].tokens[3].position, 2u);
    CHECK_EQ(batches[0].outputs.size(), 1u);
    CHECK_EQ(batches[0].outputs[0].part, 0u);
    CHECK(batches[0].tokens[0].wants_output && !batches[0].tokens[3].wants_output);
}

TEST("shape: a fixed shape fills gaps of slots, parts wide ones, and keeps long parts apart") {
    const Tokens one{7};
    const Tokens three{1, 2, 3};
    const std::vector<BatchPart> parts{{3, 5, one, true}, {20, 6, one, true}, {0, 4, one, true}, {1, 0, three, true}};
    const Counts lengths{4, 0, 11, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 2};
    const auto batches = shape_batches(parts, fixed, lengths);
    CHECK_EQ(batches.size(), 3u);
    const auto &low = batches[0].tokens;
    CHECK_EQ(low.size(), 4u);
    for (std::uint32_t slot = 0; slot < 4; slot++) CHECK_EQ(low[slot].slot, slot);
    CHECK(!low[0].filler && low[1].filler && low[2].filler && !low[3].filler);
    CHECK_EQ(low[2].position, 11u);
    CHECK_EQ(batches[0].outputs[1].part, 0u);
    CHECK_EQ(batches[0].outputs[1].index, 3u);
    // Alone at slot 20: the next slot's row goes with it.
    CHECK_EQ(batches[1].tokens.size(), 2u);
    CHECK(batches[1].tokens[1].filler && batches[1].tokens[1].wants_output);
    CHECK_EQ(batches[1].tokens[1].slot, 21u);
    CHECK_EQ(batches[1].tokens[1].position, 2u);
    // Two outputs of the long part, of which one is wanted.
    CHECK_EQ(batches[2].outputs.size(), 1u);
    CHECK_EQ(batches[2].outputs[0].index, 2u);
    CHECK(!batches[2].tokens[0].wants_output && batches[2].tokens[1].wants_output && batches[2].tokens[2].wants_output);
    // Types that do not mind get no second row, and few tokens a row each.
    const auto lone = shape_batches(parts, {true, false}, lengths);
    CHECK_EQ(lone.size(), 5u);
    for (std::size_t i = 0; i < 3; i++) CHECK_EQ(lone[2 + i].tokens.at(0).position, i);
    CHECK(lone[3].outputs.empty() && lone[4].outputs.size() == 1 && lone[4].outputs[0].part == 3);
    CHECK_EQ(shape_batches(parts, {true, false}, lengths)[1].tokens.size(), 1u);
}

TEST("shape: random steps keep every token and the rules of the shape") {
    std::mt19937_64 random(test::seed());
    const Tokens tokens = range(0, 50);
    for (int round = 0; round < 2'000; round++) {
        const auto slots = static_cast<std::uint32_t>(1 + random() % 30);
        Counts lengths(slots + 1, 0);
        std::vector<BatchPart> parts;
        for (std::uint32_t slot = 0; slot < slots; slot++) {
            lengths[slot] = static_cast<std::uint32_t>(random() % 100);
            if (random() % 3 == 0) continue;
            const std::size_t n = random() % 2 == 0 ? 1 : 1 + random() % 40;
            parts.push_back({slot, lengths[slot], std::span(tokens).first(n), random() % 2 == 0, random() % 5 == 0});
        }
        std::shuffle(parts.begin(), parts.end(), random);
        std::size_t real = 0;
        std::size_t outputs = 0;
        Counts held = lengths;
        std::size_t last_hurry = 0;
        std::size_t calls = 0;
        for (const MicroBatch &batch : shape_batches(parts, fixed, lengths)) {
            CHECK(batch.tokens.size() >= 2);
            for (const auto &[part, index] : batch.outputs) {
                CHECK(parts[part].ends && batch.tokens[index].wants_output);
                CHECK_EQ(batch.tokens[index].slot, parts[part].slot);
                CHECK_EQ(batch.tokens[index].position, parts[part].position + parts[part].tokens.size() - 1);
            }
            outputs += batch.outputs.size();
            const auto wanting = std::count_if(batch.tokens.begin(), batch.tokens.end(),
                                               [](const sllm::BatchToken &t) { return t.wants_output; });
            CHECK(wanting == 0 || wanting >= 2);
            // One slot's run, or one token of each of adjacent slots: what the library computes in one go.
            const bool alone = batch.tokens.front().slot == batch.tokens.back().slot;
            for (std::size_t i = 0; i < batch.tokens.size(); i++) {
                const sllm::BatchToken &token = batch.tokens[i];
                CHECK_EQ(token.slot, batch.tokens[0].slot + (alone ? 0 : i));
                // Behind what the cache holds when this call comes, also what the calls before it have computed.
                const auto ahead = static_cast<std::uint32_t>(alone ? i : 0);
                CHECK_EQ(token.position, held[token.slot] + ahead);
                real += token.filler ? 0 : 1;
            }
            for (const sllm::BatchToken &token : batch.tokens) held[token.slot] += token.filler ? 0 : 1;
            calls++;
            for (const BatchPart &part : parts) {
                if (part.hurries && part.slot == batch.tokens.front().slot && !batch.tokens.front().filler) {
                    last_hurry = calls;
                }
            }
        }
        const auto hurries =
            std::count_if(parts.begin(), parts.end(), [](const BatchPart &part) { return part.hurries; });
        CHECK_EQ(last_hurry, static_cast<std::size_t>(hurries));
        std::size_t given = 0;
        for (const BatchPart &part : parts) given += part.tokens.size();
        CHECK_EQ(real, given);
        CHECK_EQ(outputs, static_cast<std::size_t>(std::count_if(parts.begin(), parts.end(),
                                                                 [](const BatchPart &part) { return part.ends; })));
    }
}

TEST("kv: a sequence goes where most of it is held, and its last token is always computed") {
    KvTable table(3, {100, true, true});
    hold(table, 0, range(0, 10));
    hold(table, 1, range(50, 60));
    table.release(0);
    table.release(1);
    const auto same = table.find(range(0, 10));
    CHECK_EQ(same->slot, 0u);
    CHECK_EQ(same->reused, 9u);
    // Little of slot 1 would survive: another slot gets its share of it.
    const Tokens other{50, 51, 52, 7, 8};
    const auto shared = table.find(other);
    CHECK_EQ(shared->slot, 2u);
    CHECK_EQ(shared->source, 1u);
    CHECK_EQ(shared->reused, 3u);
    CHECK_EQ(table.find(Tokens{99})->slot, 2u);
    CHECK_EQ(table.find(Tokens{99})->reused, 0u);
}

TEST("kv: a busy slot shares its beginning where cells are shared, and is left alone where they are not") {
    for (const bool shared : {true, false}) {
        KvTable table(2, {100, shared, true});
        hold(table, 0, range(0, 10));
        const auto place = table.find(range(0, 30));
        CHECK_EQ(place->slot, 1u);
        CHECK_EQ(place->reused, shared ? 10u : 0u);
    }
    KvTable full(1, {100, true, true});
    hold(full, 0, range(0, 10));
    CHECK(!full.find(range(0, 10)));
}

TEST("kv: what cannot be cut is reused whole or not at all") {
    KvTable table(1, {100, true, false});
    hold(table, 0, range(0, 10));
    table.release(0);
    CHECK_EQ(table.find(range(0, 11))->reused, 10u);
    CHECK_EQ(table.find(range(0, 10))->reused, 0u);
    CHECK_EQ(table.find(range(0, 5))->reused, 0u);
}

TEST("kv: cells are spoken for by whole sequences, and the oldest free slot is forgotten first") {
    KvTable table(3, {25, true, true});
    hold(table, 0, range(0, 7));      // and one to come: 8
    hold(table, 1, range(100, 107));  // 8
    CHECK(!table.overfull());
    table.release(0);
    table.release(1);
    hold(table, 2, range(200, 210));  // 7 + 7 + 11
    CHECK(!table.overfull());
    table.grow(2);
    CHECK(table.overfull());
    CHECK_EQ(*table.oldest_free(), 0u);
    table.forget(0);
    CHECK(!table.overfull());
    CHECK_EQ(*table.oldest_free(), 1u);
    CHECK_EQ(table.length(1), 7u);
    table.clear();
    CHECK(!table.oldest_free());
    CHECK_EQ(table.length(2), 0u);
}

TEST_MAIN()
