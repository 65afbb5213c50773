// The engine's queue, slots and events, on the echo backend and on one that fails. Longer than most files because all
// tests share the collector of events.
#include <algorithm>
#include <atomic>
#include <latch>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <thread>

#include "engine/echo_backend.h"
#include "engine/engine.h"
#include "test/harness.h"

namespace {

using sllm::Code;
using sllm::EchoBackend;
using sllm::Engine;
using sllm::EngineOptions;
using sllm::Request;

struct Outcome {
    bool started = false;
    bool ended = false;
    std::uint32_t ends = 0;
    std::string text;
    std::uint32_t tokens = 0;
    sllm_event last{};
};

// Collects events until a number of requests have ended.
class Collector {
public:
    explicit Collector(Engine &engine) : engine_(engine) {}

    void until_ended(std::size_t n) {
        while (ended_ < n) {
            engine_.events().wait(5'000'000);
            const std::size_t before = count_;
            drain();
            if (count_ == before) throw test::Failed("no event came for five seconds");
        }
    }

    void until_token(std::uint64_t request) {
        while (outcomes[request].tokens == 0) {
            engine_.events().wait(5'000'000);
            drain();
        }
    }

    std::map<std::uint64_t, Outcome> outcomes;

private:
    void drain() {
        std::vector<sllm_event> events(16);
        std::string text(4096, '\0');
        std::uint64_t n = 0;
        std::uint64_t text_n = 0;
        CHECK_OK(engine_.events().drain(events.data(), events.size(), &n, text.data(), text.size(), &text_n));
        for (std::uint64_t i = 0; i < n; i++) take(events[i], text.substr(events[i].text_offset, events[i].text_bytes));
        count_ += n;
    }

    void take(const sllm_event &event, const std::string &text) {
        Outcome &o = outcomes[event.request];
        CHECK(!o.ended);
        o.last = event;
        if (event.kind == SLLM_EVENT_STARTED) {
            CHECK(!o.started);
            o.started = true;
        } else if (event.kind == SLLM_EVENT_TOKEN) {
            CHECK(o.started);
            CHECK_EQ(event.index, o.tokens);
            o.tokens++;
            o.text += text;
        } else {
            o.ended = true;
            o.ends++;
            ended_++;
            if (event.kind == SLLM_EVENT_DONE) {
                CHECK_EQ(event.index, o.tokens);
                o.text += text;
            }
        }
    }

    Engine &engine_;
    std::size_t ended_ = 0;
    std::size_t count_ = 0;
};

std::unique_ptr<Engine> echo(std::uint32_t context, std::uint32_t slots, std::uint32_t queue = 1024,
                             std::uint32_t token_us = 0, std::uint32_t batch = 16) {
    auto backend = std::make_unique<EchoBackend>(context, slots, batch, token_us);
    auto engine = std::make_unique<Engine>(std::move(backend), EngineOptions{.queue = queue});
    CHECK_OK(engine->attach(""));
    return engine;
}

Request request_of(std::uint64_t number, const std::string &text) {
    Request request;
    request.number = number;
    for (const char byte : text) request.prompt.push_back(static_cast<unsigned char>(byte));
    return request;
}

// Computes as the echo does from `start` on, and fails at a given step.
class FailingBackend : public EchoBackend {
public:
    FailingBackend(int good_steps, std::latch &start) : EchoBackend(100, 2, 16, 0), left_(good_steps), start_(start) {}
    sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
        start_.wait();
        if (left_-- == 0) return {Code::engine, "the device is gone"};
        return EchoBackend::decode(batch);
    }

private:
    int left_;
    std::latch &start_;
};

}  // namespace

TEST("engine: the echo answers with the prompt and stops") {
    const auto engine = echo(100, 1);
    CHECK_OK(engine->submit(request_of(1, "h\xC3\xA9llo")));
    Collector events(*engine);
    events.until_ended(1);
    const Outcome &o = events.outcomes[1];
    CHECK_EQ(o.text, "h\xC3\xA9llo");
    CHECK_EQ(o.tokens, 6u);
    CHECK_EQ(o.last.status, SLLM_FINISH_STOP);
    CHECK_EQ(o.last.prompt_tokens, 6u);
}

TEST("engine: what it is at can be seen while a step hangs: computing, and no progress") {
    std::latch start(1);
    Engine engine(std::make_unique<FailingBackend>(1'000, start));
    CHECK_OK(engine.attach(""));
    CHECK(!engine.activity().computing);
    CHECK_OK(engine.submit(request_of(1, "abc")));
    while (!engine.activity().computing) std::this_thread::yield();
    const sllm::EngineActivity stuck = engine.activity();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(engine.activity().computing);
    CHECK_EQ(engine.activity().progress, stuck.progress);
    start.count_down();
    Collector events(engine);
    events.until_ended(1);
    while (engine.activity().computing) std::this_thread::yield();
    const sllm::EngineActivity done = engine.activity();
    CHECK(done.progress > stuck.progress);
    CHECK_EQ(done.batcher.running, 0u);
    CHECK_EQ(done.batcher.computed_tokens, 6u);  // the prompt at once, then what it answers but for the last token
    CHECK(done.batcher.kv_used_tokens > 0);  // kept for a request that begins alike
}

TEST("engine: max_tokens and the context end an answer as LENGTH, a stop string as STOP") {
    const auto engine = echo(20, 3);
    Request limited = request_of(1, "abcdef");
    limited.max_tokens = 4;
    Request endless = request_of(2, "abc");
    endless.ignore_eos = true;
    Request stopped = request_of(3, "say STOP now");
    stopped.stops = {"STOP"};
    CHECK_OK(engine->submit(std::move(limited)));
    CHECK_OK(engine->submit(std::move(endless)));
    CHECK_OK(engine->submit(std::move(stopped)));
    Collector events(*engine);
    events.until_ended(3);
    CHECK_EQ(events.outcomes[1].text, "abcd");
    CHECK_EQ(events.outcomes[1].last.status, SLLM_FINISH_LENGTH);
    CHECK_EQ(events.outcomes[2].tokens, 17u);  // 20 of context less 3 of prompt
    CHECK_EQ(events.outcomes[2].text, "abcabcabcabca");  // four times the end that has no text, ignored
    CHECK_EQ(events.outcomes[2].last.status, SLLM_FINISH_LENGTH);
    CHECK_EQ(events.outcomes[3].text, "say ");
    CHECK_EQ(events.outcomes[3].tokens, 8u);
    CHECK_EQ(events.outcomes[3].last.status, SLLM_FINISH_STOP);
}

TEST("engine: bad requests are refused and bring no event") {
    const auto engine = echo(10, 1);
    const auto code = [&](auto change) {
        Request request = request_of(1, "abc");
        change(request);
        return engine->submit(std::move(request)).code();
    };
    CHECK_EQ(code([](Request &r) { r.prompt.clear(); }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.prompt.assign(10, 1); }), Code::context_overflow);
    CHECK_EQ(code([](Request &r) { r.prompt[1] = -1; }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.prompt[1] = 257; }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.sampling.temperature = -1; }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.sampling.temperature = std::numeric_limits<double>::quiet_NaN(); }),
             Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.sampling.top_p = 1.5; }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.sampling.min_p = -0.1; }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.stops = {""}; }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.stops = {"\xE2\x82"}; }), Code::invalid_argument);
    CHECK_EQ(code([](Request &r) { r.stops.assign(17, "x"); }), Code::invalid_argument);
    CHECK_EQ(engine->cancel(1).code(), Code::not_found);
    CHECK_OK(engine->submit(request_of(1, "abcdefghi")));
    Collector events(*engine);
    events.until_ended(1);
    CHECK_EQ(events.outcomes.size(), 1u);
    CHECK_EQ(events.outcomes[1].tokens, 1u);
}

TEST("engine: slots run together, the queue is bounded, and numbers are unique while unfinished") {
    const auto engine = echo(1000, 2, 1, 2'000);
    const std::string long_answer(250, 'x');  // half a second: long enough for what happens below
    for (std::uint64_t i = 1; i <= 3; i++) CHECK_OK(engine->submit(request_of(i, long_answer)));
    CHECK_EQ(engine->submit(request_of(4, "x")).code(), Code::overloaded);
    Collector events(*engine);
    events.until_token(2);
    CHECK(!events.outcomes[1].ended && !events.outcomes[3].started);
    CHECK_OK(engine->cancel(3));
    events.until_ended(1);
    CHECK_EQ(engine->submit(request_of(1, "x")).code(), Code::invalid_argument);
    events.until_ended(3);
    CHECK_EQ(events.outcomes[1].text, long_answer);
    CHECK_OK(engine->submit(request_of(5, "x")));
}

TEST("engine: cancelling ends a running and a waiting request with one event each") {
    const auto engine = echo(100'000, 1, 10, 1'000);
    Request endless = request_of(1, "abc");
    endless.ignore_eos = true;
    CHECK_OK(engine->submit(std::move(endless)));
    CHECK_OK(engine->submit(request_of(2, "waits")));
    Collector events(*engine);
    events.until_token(1);
    CHECK_OK(engine->cancel(2));
    CHECK_OK(engine->cancel(1));
    events.until_ended(2);
    for (const std::uint64_t number : {1u, 2u}) {
        CHECK_EQ(events.outcomes[number].last.kind, static_cast<std::uint32_t>(SLLM_EVENT_ERROR));
        CHECK_EQ(events.outcomes[number].last.status, static_cast<int>(Code::cancelled));
        CHECK_EQ(engine->cancel(number).code(), Code::not_found);
    }
    CHECK(!events.outcomes[2].started);
    CHECK_OK(engine->submit(request_of(3, "next")));
    events.until_ended(3);
    CHECK_EQ(events.outcomes[3].text, "next");
}

TEST("engine: a backend that fails ends every request with its words and takes no more") {
    std::latch start(1);
    Engine engine(std::make_unique<FailingBackend>(3, start));
    CHECK_OK(engine.attach(""));
    for (std::uint64_t i = 1; i <= 4; i++) CHECK_OK(engine.submit(request_of(i, "abcdef")));
    start.count_down();
    Collector events(engine);
    events.until_ended(4);
    for (auto &[number, o] : events.outcomes) CHECK_EQ(o.last.status, static_cast<int>(Code::engine));
    CHECK_EQ(engine.submit(request_of(9, "x")).code(), Code::engine);
    CHECK_EQ(engine.park(true).code(), Code::engine);
}

TEST("engine: it parks between requests only, and takes none while it is parked") {
    Engine engine(std::make_unique<EchoBackend>(100'000, 1, 16, 1'000));
    CHECK_EQ(engine.submit(request_of(1, "early")).code(), Code::wrong_state);
    CHECK_OK(engine.attach(""));
    CHECK_EQ(engine.attach("").code(), Code::wrong_state);
    Request endless = request_of(1, "abc");
    endless.ignore_eos = true;
    CHECK_OK(engine.submit(std::move(endless)));
    CHECK_OK(engine.submit(request_of(2, "waits")));
    Collector events(engine);
    events.until_token(1);
    CHECK_EQ(engine.park(true).code(), Code::wrong_state);
    CHECK_OK(engine.cancel(1));
    CHECK_OK(engine.cancel(2));
    events.until_ended(2);
    CHECK_OK(engine.park(true));
    CHECK_OK(engine.park(false));
    CHECK_EQ(engine.submit(request_of(3, "x")).code(), Code::wrong_state);
    CHECK_OK(engine.attach(""));
    CHECK_OK(engine.submit(request_of(3, "again")));
    events.until_ended(3);
    CHECK_EQ(events.outcomes[3].text, "again");
}

TEST("engine: requests that race with parking are answered in full or refused") {
    const auto engine = echo(200, 2);
    std::atomic<bool> done{false};
    std::atomic<int> parked{0};
    std::thread parking([&] {
        while (!done) {
            if (!engine->park(true).ok()) continue;
            parked++;
            CHECK_OK(engine->attach(""));
        }
    });
    Collector events(*engine);
    std::size_t accepted = 0;
    for (std::uint64_t i = 1; i <= 500 || parked == 0; i++) {
        if (engine->submit(request_of(i, "abc")).ok()) events.until_ended(++accepted);
    }
    done = true;
    parking.join();
    for (const auto &[number, o] : events.outcomes) CHECK_EQ(o.text, "abc");
}

TEST("engine: it can be destroyed with work in progress and with nobody draining") {
    const auto start = sllm::Env::posix().now_ms();
    {
        const auto engine = echo(1'000'000, 4, 100, 10'000'000);
        for (std::uint64_t i = 1; i <= 20; i++) CHECK_OK(engine->submit(request_of(i, "abc")));
    }
    // Interrupted, not waited for: one step alone would take ten seconds.
    CHECK(sllm::Env::posix().now_ms() - start < 5'000);
    const auto engine = echo(1'000'000, 1);
    Request endless = request_of(1, "abc");
    endless.ignore_eos = true;
    CHECK_OK(engine->submit(std::move(endless)));
    // Its events fill the queue; the engine waits there.
    for (int i = 0; i < 20; i++) engine->events().wait(1'000);
}

TEST("engine: random traffic gives every request its own answer and exactly one end") {
    std::mt19937_64 random(test::seed());
    for (int round = 0; round < 10; round++) {
        const auto slots = static_cast<std::uint32_t>(1 + random() % 5);
        const auto engine = echo(200, slots, 1024, 0, static_cast<std::uint32_t>(1 + random() % 40));
        std::map<std::uint64_t, std::string> asked;
        std::map<std::uint64_t, bool> cancelled;
        Collector events(*engine);
        for (std::uint64_t i = 1; i <= 60; i++) {
            std::string text;
            for (std::uint64_t n = 1 + random() % 90; n > 0; n--) text += static_cast<char>('a' + random() % 26);
            asked[i] = text;
            CHECK_OK(engine->submit(request_of(i, text)));
            if (random() % 4 == 0) {
                const std::uint64_t victim = 1 + random() % i;
                cancelled[victim] = engine->cancel(victim).ok() || cancelled[victim];
            }
        }
        events.until_ended(60);
        for (const auto &[number, text] : asked) {
            const Outcome &o = events.outcomes[number];
            CHECK_EQ(o.ends, 1u);
            if (o.last.kind == SLLM_EVENT_ERROR) {
                CHECK(cancelled[number] && text.starts_with(o.text));
            } else {
                CHECK_EQ(o.text, text);
            }
        }
    }
}

TEST_MAIN()
