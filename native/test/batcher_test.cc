// The batcher over the echo backend, step by step: pauses, reuse, a cache that runs short, resumed answers.
#include <algorithm>
#include <functional>
#include <random>

#include "engine/echo_backend.h"
#include "test/batcher_scene.h"
#include "test/harness.h"
#include "test/scene_requests.h"

namespace {

using sllm::EchoBackend;
using sllm::Request;
using test::BatcherScene;
using test::request_of;

Request endless(std::uint64_t number, const std::string &text, std::uint64_t max_tokens) {
    Request request = request_of(number, text, max_tokens);
    request.ignore_eos = true;
    return request;
}

// Counts the tokens it computes.
class Counting : public test::BackendWrapper {
public:
    using BackendWrapper::BackendWrapper;
    sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
        largest = std::max(largest, batch.size());
        computed += batch.size();
        return inner_.decode(batch);
    }
    std::size_t largest = 0;
    std::size_t computed = 0;
};

// Gives calls up as it is told to, before they change anything.
class GivingUp : public test::BackendWrapper {
public:
    using BackendWrapper::BackendWrapper;
    sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
        if (calls++ % every == 0) return {sllm::Code::cancelled, "given up"};
        return inner_.decode(batch);
    }
    std::uint64_t every = 2;
    std::uint64_t calls = 0;
};

}  // namespace

TEST("batcher: a step that is given up changes no answer, and what it took back is computed again") {
    EchoBackend echo(2'000, 3, 64, 0);
    GivingUp backend(echo);
    BatcherScene scene(backend, 32);
    for (std::uint64_t i = 1; i <= 5; i++) scene.submit(request_of(i, std::string(150 * i, 'a') + "end"));
    scene.run();
    for (std::uint64_t i = 1; i <= 5; i++) {
        CHECK_EQ(scene.answers[i].ends, 1U);
        CHECK_EQ(scene.answers[i].tokens.size(), 150 * i + 3);
    }
    CHECK(backend.calls > 50);
}

TEST("batcher: the request with half of a step's tokens or more dominates it, during the step alone") {
    struct Looking : test::BackendWrapper {
        using BackendWrapper::BackendWrapper;
        sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
            if (look) look();
            return inner_.decode(batch);
        }
        std::function<void()> look;
    };
    EchoBackend echo(2'000, 3, 64, 0);
    Looking backend(echo);
    BatcherScene scene(backend, 32);
    std::vector<bool> seen;
    backend.look = [&] {
        for (std::uint64_t i = 1; i <= 3; i++) seen.push_back(scene.dominates_step(i));
    };
    scene.submit(endless(1, "abc", 100));
    scene.step();
    scene.submit(request_of(2, std::string(500, 'x'), 1));
    scene.step();
    const std::vector<bool> expected{true, false, false, false, true, false};
    CHECK(seen == expected);
    CHECK(!scene.dominates_step(2));
}

TEST("batcher: a running answer gets a token in every step while long prompts are computed") {
    EchoBackend echo(20'000, 4, 512, 0);
    Counting backend(echo);
    BatcherScene scene(backend, 64);
    scene.submit(endless(1, "abc", 1'000));
    scene.step();
    for (std::uint64_t i = 2; i <= 4; i++) scene.submit(request_of(i, std::string(5'000, 'x'), 1));
    for (std::size_t n = 0; scene.answers[4].ends == 0; n++) {
        CHECK_EQ(scene.answers[1].tokens.size(), n + 1);
        scene.step();
        CHECK(backend.largest <= 1 + 64);
        CHECK(n < 15'000 / 64 + 2);
    }
}

TEST("batcher: a short prompt does not wait for long ones that came before") {
    EchoBackend echo(20'000, 4, 512, 0);
    BatcherScene scene(echo, 64);
    scene.submit(endless(1, "abc", 1'000));
    scene.submit(request_of(2, std::string(9'000, 'x'), 1));
    scene.submit(request_of(3, std::string(9'000, 'y'), 1));
    for (int i = 0; i < 10; i++) scene.step();
    scene.submit(request_of(4, std::string(60, 'z'), 1));
    for (int i = 0; i < 4; i++) scene.step();
    CHECK_EQ(scene.answers[4].ends, 1u);
    CHECK_EQ(scene.answers[2].ends, 0u);
}

TEST("batcher: a prompt's beginning is computed once, and the event tells how much was found") {
    EchoBackend echo(1'000, 2, 512, 0);
    Counting backend(echo);
    BatcherScene scene(backend, 256);
    const std::string system(300, 's');
    scene.submit(request_of(1, system + "first", 3));
    scene.run();
    CHECK_EQ(scene.answers[1].started.cached_tokens, 0u);
    CHECK_EQ(backend.computed, 305u + 2);
    scene.submit(request_of(2, system + "second", 3));
    scene.step();
    // The first one's slot took it over, and the third shares what is busy there.
    scene.submit(request_of(3, system + "seventh", 3));
    scene.run();
    CHECK_EQ(scene.answers[2].started.cached_tokens, 300u);
    CHECK_EQ(scene.answers[3].started.cached_tokens, 302u);
    CHECK_EQ(scene.answers[3].last.cached_tokens, 302u);
    CHECK_EQ(backend.computed, 307u + (6 + 2) + (5 + 2));
    // The same again: its last token alone.
    scene.submit(request_of(4, system + "second", 1));
    scene.run();
    CHECK_EQ(scene.answers[4].started.cached_tokens, 305u);
    CHECK_EQ(scene.answers[4].text, "s");
}

TEST("batcher: when cells run short the youngest goes back, comes again, and its answer does not change") {
    EchoBackend echo(100, 3, 64, 0, 120);
    Counting backend(echo);
    BatcherScene scene(backend, 32);
    for (std::uint64_t i = 1; i <= 3; i++) scene.submit(endless(i, std::string(10, static_cast<char>('a' + i)), 80));
    scene.run(1'000);
    for (std::uint64_t i = 1; i <= 3; i++) {
        const test::Answer &answer = scene.answers[i];
        CHECK_EQ(answer.tokens.size(), 80u);
        CHECK_EQ(answer.last.status, SLLM_FINISH_LENGTH);
        CHECK_EQ(answer.text, std::string(73, static_cast<char>('a' + i)));  // and seven ends without text
    }
    // Together they need 267 tokens of 120: something was computed twice.
    CHECK(backend.computed > 3 * (10 + 79));
}

TEST("batcher: a request waits for cells that older ones need, and is not overtaken") {
    EchoBackend echo(100, 3, 64, 0, 120);
    BatcherScene scene(echo, 32);
    scene.submit(endless(1, std::string(60, 'a'), 20));
    scene.submit(endless(2, std::string(60, 'b'), 5));
    scene.submit(endless(3, "c", 5));
    scene.step();
    CHECK_EQ(scene.answers[2].started.kind, 0u);
    CHECK_EQ(scene.answers[3].started.kind, 0u);
    scene.run(200);
    for (std::uint64_t i = 1; i <= 3; i++) CHECK_EQ(scene.answers[i].last.status, SLLM_FINISH_LENGTH);
}

TEST("batcher: an answer resumed at any token ends as the undisturbed one") {
    Request whole = request_of(1, "h\xC3\xA9llo STOP w\xE2\x82\xACrld");
    whole.stops = {"STOP w\xE2\x82\xAC", "XY"};
    EchoBackend echo(100, 2, 16, 0);
    BatcherScene undisturbed(echo, 8);
    undisturbed.submit(whole);
    undisturbed.run();
    const test::Answer &expected = undisturbed.answers[1];
    CHECK_EQ(expected.text, "h\xC3\xA9llo ");
    for (std::size_t cut = 0; cut <= expected.tokens.size(); cut++) {
        BatcherScene scene(echo, 8);
        std::string text;
        // Its text so far, as events told it.
        sllm::TextAssembler told(whole.stops);
        for (std::size_t i = 0; i < cut; i++) text += told.push(std::string(1, static_cast<char>(expected.tokens[i])));
        Request rest = whole;
        rest.number = 2;
        rest.resume.assign(expected.tokens.begin(), expected.tokens.begin() + static_cast<std::ptrdiff_t>(cut));
        scene.submit(std::move(rest));
        scene.run();
        CHECK_EQ(scene.answers[2].resumed_text, text);
        CHECK_EQ(text + scene.answers[2].text, expected.text);
        CHECK_EQ(scene.answers[2].tokens.size(), expected.tokens.size() - cut);
        CHECK_EQ(scene.answers[2].last.status, expected.last.status);
        CHECK_EQ(scene.answers[2].last.index, expected.last.index);
    }
}

TEST("batcher: a resumed answer that has all its tokens ends at once") {
    EchoBackend echo(10, 1, 16, 0);
    BatcherScene scene(echo, 8);
    Request request = request_of(1, "abcd", 3);
    request.resume = {'a', 'b', 'c'};
    scene.submit(request);
    Request full = request_of(2, "abcd");
    full.resume = {'a', 'b', 'c', 'd', 'a', 'b'};
    scene.submit(full);
    scene.run();
    for (const std::uint64_t number : {1u, 2u}) {
        CHECK_EQ(scene.answers[number].last.status, SLLM_FINISH_LENGTH);
        CHECK(scene.answers[number].tokens.empty());
    }
    CHECK_EQ(scene.answers[2].last.index, 6u);
}

TEST("batcher: a resumed answer that had ended is refused, unless ends do not count") {
    EchoBackend echo(50, 1, 16, 0);
    BatcherScene scene(echo, 8);
    for (const std::uint64_t number : {1u, 2u}) {
        Request request = request_of(number, "ab", 6);
        request.resume = {'a', 'b', EchoBackend::end_token, 'a'};
        request.ignore_eos = number == 2;
        scene.submit(std::move(request));
    }
    scene.run();
    CHECK_EQ(scene.answers[1].last.kind, static_cast<std::uint32_t>(SLLM_EVENT_ERROR));
    CHECK_EQ(scene.answers[1].last.status, SLLM_E_INVALID_ARGUMENT);
    CHECK_EQ(scene.answers[2].text, "b");
    CHECK_EQ(scene.answers[2].last.index, 6u);
}

TEST("batcher: random traffic on a short cache gives every request its own answer and exactly one end") {
    std::mt19937_64 random(test::seed());
    for (int round = 0; round < 30; round++) {
        const auto slots = static_cast<std::uint32_t>(1 + random() % 6);
        const auto kv_tokens = static_cast<std::uint32_t>(100 + random() % (slots * 100 - 99));
        EchoBackend echo(100, slots, static_cast<std::uint32_t>(1 + random() % 60), 0, kv_tokens);
        BatcherScene scene(echo, static_cast<std::uint32_t>(1 + random() % 40));
        std::map<std::uint64_t, std::string> asked;
        std::uint64_t next = 1;
        std::map<std::uint64_t, bool> cancelled;
        while (next <= 80) {
            // Few beginnings, so that much is shared.
            std::string text(random() % 60, static_cast<char>('a' + random() % 3));
            for (std::uint64_t n = 1 + random() % 30; n > 0; n--) text += static_cast<char>('a' + random() % 3);
            asked[next] = text;
            Request request = request_of(next, text);
            const std::size_t room = std::min(text.size(), 99 - text.size());
            const std::size_t resumed = random() % 3 == 0 ? random() % room : 0;
            const auto from = request.prompt.begin();
            request.resume.assign(from, from + static_cast<std::ptrdiff_t>(resumed));
            scene.submit(std::move(request));
            asked[next].erase(0, resumed);
            next++;
            for (std::uint64_t n = random() % 12; n > 0; n--) scene.step();
            if (random() % 5 == 0) {
                const std::uint64_t victim = 1 + random() % (next - 1);
                cancelled[victim] = true;
                scene.cancel(victim);
            }
        }
        scene.run(20'000);
        for (const auto &[number, text] : asked) {
            const test::Answer &answer = scene.answers[number];
            CHECK_EQ(answer.ends, 1u);
            if (answer.last.kind == SLLM_EVENT_ERROR) {
                CHECK(cancelled[number] && text.starts_with(answer.text));
            } else if (answer.last.status == SLLM_FINISH_STOP) {
                CHECK_EQ(answer.text, text);
            } else {
                CHECK(text.starts_with(answer.text));
            }
        }
        // Nothing leaked: as many full contexts as there are cells for, together.
        for (std::uint64_t i = 0; i < kv_tokens / 100; i++) scene.submit(endless(1'000 + i, std::string(50, 'q'), 50));
        for (int i = 0; i < 60 + 60 * 6; i++) scene.step();
        for (std::uint64_t i = 0; i < kv_tokens / 100; i++) CHECK_EQ(scene.answers[1'000 + i].tokens.size(), 50u);
    }
}

TEST_MAIN()
