// Held requests over the echo backend: rounds of tokens, the hand-over, and what happens around them.
#include <algorithm>
#include <functional>
#include <utility>

#include "core/limits.h"
#include "engine/echo_backend.h"
#include "test/batcher_scene.h"
#include "test/harness.h"
#include "test/scene_requests.h"

namespace {

using sllm::EchoBackend;
using sllm::Request;
using test::BatcherScene;
using test::held;
using test::part;
using test::request_of;
using test::Tokens;

// Of a fixed shape; somebody is about to be let go with every call.
class Hurrying : public test::BackendWrapper {
public:
    explicit Hurrying(sllm::Backend &inner) : BackendWrapper(inner) { facts_.shape.fixed = true; }
    sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
        rows.push_back(batch.size());
        if (scene != nullptr) scene->hurry(true);
        return inner_.decode(batch);
    }
    BatcherScene *scene = nullptr;
    std::vector<std::size_t> rows;  // of each call
};

void step_until(BatcherScene &scene, const std::function<bool()> &done) {
    for (int i = 0; !done(); i++) {
        CHECK(i < 10'000);
        scene.step();
    }
}

}  // namespace

TEST("held: a request that moves in rounds goes on where it was, and says every token once") {
    EchoBackend from(500, 2, 64, 0);
    EchoBackend to(500, 3, 64, 0);
    BatcherScene source(from, 32);
    BatcherScene destination(to, 32);
    const Request request = request_of(1, "Shall I compare thee to a summer's day?");
    source.submit(request);
    test::Answer &first = source.answers[1];
    step_until(source, [&] { return first.tokens.size() >= 10; });

    destination.submit(held(request, part(first.tokens, 0, 10)));
    test::Answer &second = destination.answers[1];
    step_until(destination, [&] { return !second.held.empty(); });
    CHECK_EQ(second.held.back(), 10u);
    CHECK(destination.idle());
    CHECK_EQ(second.started.kind, 0u);

    for (int i = 0; i < 5; i++) source.step();
    destination.extend(1, part(first.tokens, 10, 15), false);
    step_until(destination, [&] { return second.held.back() == 15; });

    source.step();
    source.hold(1);
    CHECK(first.held == std::vector<std::uint32_t>{16});
    CHECK(source.idle());
    destination.extend(1, part(first.tokens, 15, 16), true);
    CHECK_EQ(second.resumed_text, first.text);
    destination.run();
    source.cancel(1);
    CHECK_EQ(first.ends, 1u);
    CHECK_EQ(first.tokens.size() + second.tokens.size(), request.prompt.size());
    CHECK_EQ(first.text + second.text, "Shall I compare thee to a summer's day?");
    CHECK_EQ(second.last.index, request.prompt.size());
}

TEST("held: a source that is let go again goes on as if nothing had been") {
    EchoBackend backend(500, 2, 64, 0);
    BatcherScene scene(backend, 32);
    scene.submit(request_of(1, "one answer"));
    scene.submit(request_of(2, "another answer"));
    for (int i = 0; i < 4; i++) scene.step();
    scene.hold(1);
    const std::size_t before = scene.answers[1].tokens.size();
    scene.run();
    CHECK_EQ(scene.answers[1].tokens.size(), before);
    CHECK_EQ(scene.answers[2].ends, 1u);
    scene.extend(1, {}, true);
    scene.run();
    CHECK_EQ(scene.answers[1].text, "one answer");
}

TEST("held: a step with streams takes a share of what is held, one without all that it can") {
    struct Widest : test::BackendWrapper {
        using BackendWrapper::BackendWrapper;
        sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
            widest = std::max(widest, batch.size());
            return inner_.decode(batch);
        }
        std::size_t widest = 0;
    };
    EchoBackend echo(2'000, 2, 512, 0);
    Widest backend(echo);
    BatcherScene scene(backend, 256);
    Request stays = request_of(1, "x", 1'500);
    stays.ignore_eos = true;
    scene.submit(stays);
    scene.step();
    scene.submit(held(request_of(2, std::string(900, 'a')), Tokens(100, 'a')));
    backend.widest = 0;
    step_until(scene, [&] { return !scene.answers[2].held.empty(); });
    CHECK(backend.widest <= 1 + std::size_t{sllm::limits::held_tokens});
    scene.cancel(1);
    scene.submit(held(request_of(3, std::string(900, 'b')), {}));
    scene.run();
    CHECK_EQ(backend.widest, 512u);
}

TEST("held: a request that is let go computes what came with it and nothing else, and prompts wait for that") {
    struct Rows : test::BackendWrapper {
        using BackendWrapper::BackendWrapper;
        sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
            rows.push_back(batch.size());
            return inner_.decode(batch);
        }
        std::vector<std::size_t> rows;
    };
    EchoBackend echo(2'000, 4, 512, 0);
    Rows backend(echo);
    BatcherScene scene(backend, 256);
    const std::string text(600, 'a');
    for (const std::uint64_t number : {1u, 2u}) scene.submit(held(request_of(number, text), Tokens(10, 'a')));
    step_until(scene, [&] { return scene.idle(); });
    CHECK_EQ(scene.answers[1].held.back(), 10u);

    scene.submit(request_of(3, std::string(900, 'b')));
    scene.step();
    backend.rows.clear();
    scene.extend(1, Tokens{'a'}, true);
    scene.step();
    CHECK_EQ(scene.answers[1].tokens.size(), 1u);
    // Nothing came with this one: its last token is computed again.
    scene.extend(2, {}, true);
    scene.step();
    CHECK(!scene.answers[2].tokens.empty());
    CHECK_EQ(backend.rows[0], 1u);
    // The prompt has its part of every second step at least.
    CHECK(backend.rows[1] > 200);
    scene.run();
    CHECK_EQ(scene.answers[1].text, std::string(589, 'a'));
    CHECK_EQ(scene.answers[2].text, std::string(590, 'a'));
    CHECK_EQ(scene.answers[3].ends, 1u);
}

TEST("held: in a fixed shape who is let go has a step of its own, and its next token comes with those of the others") {
    EchoBackend echo(2'000, 3, 64, 0);
    Hurrying backend(echo);
    BatcherScene scene(backend, 32);
    const std::string text(20, 'a');
    scene.submit(request_of(1, text));
    scene.submit(held(request_of(2, text), {'a'}));
    step_until(scene, [&] { return !scene.answers[2].held.empty() && scene.answers[2].held.back() == 1; });
    scene.extend(2, Tokens{'a'}, true);
    const std::size_t told = scene.answers[1].tokens.size();
    backend.rows.clear();
    scene.step();
    CHECK(backend.rows == std::vector<std::size_t>{1});
    CHECK_EQ(scene.answers[2].tokens.size(), 1u);
    CHECK_EQ(scene.answers[1].tokens.size(), told);
    scene.step();
    CHECK_EQ(scene.answers[2].tokens.size(), 2u);
    CHECK_EQ(scene.answers[1].tokens.size(), told + 1);
    scene.run();
    CHECK_EQ(scene.answers[1].text, text);
}

TEST("held: output that the cache holds from before counts as found, and a prompt's part of it alone at the start") {
    EchoBackend backend(500, 2, 64, 0);
    BatcherScene scene(backend, 32);
    const std::string text = "to be or not to be";
    scene.submit(request_of(1, text));
    scene.run();
    scene.submit(held(request_of(2, text), scene.answers[1].tokens));
    scene.run();
    CHECK(scene.answers[2].found > text.size());
    scene.extend(2, {}, true);
    CHECK_EQ(scene.answers[2].started.cached_tokens, text.size());
}

TEST("held: what stops during the rounds stops at the hand-over, and limits count what came before") {
    EchoBackend backend(500, 2, 64, 0);
    BatcherScene scene(backend, 32);
    Request stops = request_of(1, "abcdef");
    stops.stops = {"cd"};
    scene.submit(held(stops, {'a', 'b'}));
    scene.run();
    scene.extend(1, Tokens{'c', 'd'}, true);
    CHECK_EQ(scene.answers[1].last.kind, static_cast<std::uint32_t>(SLLM_EVENT_DONE));
    CHECK_EQ(scene.answers[1].resumed_text, "ab");
    CHECK_EQ(scene.answers[1].last.status, static_cast<std::int32_t>(SLLM_FINISH_STOP));

    scene.submit(held(request_of(2, "abcdef", 4), {'a', 'b'}));
    scene.run();
    scene.extend(2, Tokens{'c'}, true);
    scene.run();
    CHECK_EQ(scene.answers[2].last.status, static_cast<std::int32_t>(SLLM_FINISH_LENGTH));
    CHECK_EQ(scene.answers[2].last.index, 4u);
    CHECK_EQ(scene.answers[2].text, "d");
}

TEST("held: what cannot be output of the request ends it with a reason") {
    EchoBackend backend(16, 4, 64, 0);
    BatcherScene scene(backend, 32);
    for (std::uint64_t i = 1; i <= 3; i++) scene.submit(held(request_of(i, "prompt"), {}));
    scene.submit(request_of(4, "prompt"));
    scene.run();
    scene.extend(1, Tokens{EchoBackend::end_token}, false);
    scene.extend(2, Tokens(11, 'a'), false);
    scene.submit(held(request_of(5, "prompt"), {}));
    scene.run();
    scene.hold(5);
    CHECK_EQ(scene.answers[1].last.status, static_cast<std::int32_t>(SLLM_E_INVALID_ARGUMENT));
    CHECK_EQ(scene.answers[2].last.status, static_cast<std::int32_t>(SLLM_E_CONTEXT_OVERFLOW));
    scene.cancel(3);
    CHECK_EQ(scene.answers[3].last.status, static_cast<std::int32_t>(SLLM_E_CANCELLED));
    // Nobody knows these any more.
    scene.extend(4, {}, true);
    scene.hold(1);
    CHECK_EQ(scene.answers[4].ends, 1u);
}

TEST("held: while one is about to go on, a step leaves the rows of held ones to a later one, and no answer changes") {
    EchoBackend echo(2'000, 3, 64, 0);
    Hurrying backend(echo);
    BatcherScene scene(backend, 32);
    const std::string text(200, 'a');
    scene.submit(request_of(1, text));
    scene.submit(held(request_of(2, text), {'a'}));
    step_until(scene, [&] { return scene.answers[1].tokens.size() >= 2; });
    CHECK(scene.answers[2].held.empty());
    backend.scene = &scene;
    backend.rows.clear();
    scene.step();
    // The stream's call, in which somebody came; the next one has the rows of the held one again.
    CHECK(backend.rows == std::vector<std::size_t>{1});
    scene.hurry(false);
    backend.scene = nullptr;
    scene.step();
    CHECK(backend.rows.size() > 1);
    step_until(scene, [&] { return !scene.answers[2].held.empty() && scene.answers[2].held.back() == 1; });
    scene.extend(2, {}, true);
    scene.run();
    CHECK_EQ(scene.answers[1].text, text);
    CHECK_EQ(scene.answers[2].text, text.substr(1));
}

TEST_MAIN()
