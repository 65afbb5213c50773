// Streams that move to and fro between two engines at random, over the echo backend.
#include <random>
#include <utility>

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

// Streams of two scenes that move to and fro at random. A move gives a request a number of its own at the destination.
class RandomMoves {
public:
    explicit RandomMoves(std::mt19937_64 &random) : random_(random) {}

    void turn() {
        if (streams_.size() < 60 && random_() % 8 == 0) begin();
        for (Stream &stream : streams_) {
            if (collect(stream) || random_() % 4 != 0) continue;
            if (!stream.moving) open(stream);
            else if (random_() % 3 == 0) end_move(stream);
            else send(stream, false);
        }
        for (BatcherScene &scene : scenes_) scene.step();
    }

    void finish() {
        for (Stream &stream : streams_) {
            if (std::exchange(stream.moving, false)) scenes_[1 - stream.at].cancel(stream.number_there);
        }
        for (BatcherScene &scene : scenes_) scene.run();
        CHECK_EQ(streams_.size(), 60u);
        for (Stream &stream : streams_) {
            CHECK(collect(stream));
            CHECK(stream.tokens == stream.request.prompt);
        }
    }

private:
    struct Stream {
        Request request;
        Tokens tokens;  // of all places, in order
        std::size_t at = 0;
        std::uint64_t number = 0;
        std::size_t taken = 0;  // of its tokens there
        bool moving = false;
        std::uint64_t number_there = 0;
        std::size_t sent = 0;
    };

    void begin() {
        std::string text(5 + random_() % 40, 'a');
        for (char &byte : text) byte = static_cast<char>('a' + random_() % 26);
        Stream stream{request_of(next_, text), {}, random_() % 2, next_, 0, false, 0, 0};
        scenes_[stream.at].submit(stream.request);
        streams_.push_back(stream);
        next_++;
    }

    // Whether it has ended.
    bool collect(Stream &stream) {
        const test::Answer &answer = scenes_[stream.at].answers[stream.number];
        const Tokens more = part(answer.tokens, stream.taken, answer.tokens.size());
        stream.tokens.insert(stream.tokens.end(), more.begin(), more.end());
        stream.taken = answer.tokens.size();
        if (answer.ends == 0) return false;
        if (std::exchange(stream.moving, false)) scenes_[1 - stream.at].cancel(stream.number_there);
        return true;
    }

    void open(Stream &stream) {
        stream.moving = true;
        stream.sent = stream.tokens.size();
        stream.number_there = next_++;
        Request moved = held(stream.request, stream.tokens);
        moved.number = stream.number_there;
        scenes_[1 - stream.at].submit(moved);
    }

    void send(Stream &stream, bool go) {
        const Tokens more = part(stream.tokens, stream.sent, stream.tokens.size());
        scenes_[1 - stream.at].extend(stream.number_there, more, go);
        stream.sent = stream.tokens.size();
    }

    // Half of them fail.
    void end_move(Stream &stream) {
        scenes_[stream.at].hold(stream.number);
        stream.moving = false;
        if (random_() % 2 == 0) {
            scenes_[1 - stream.at].cancel(stream.number_there);
            scenes_[stream.at].extend(stream.number, {}, true);
            return;
        }
        send(stream, true);
        scenes_[stream.at].cancel(stream.number);
        stream.at = 1 - stream.at;
        stream.number = stream.number_there;
        stream.taken = 0;
    }

    std::mt19937_64 &random_;
    EchoBackend echoes_[2] = {{120, 3, 32, 0, 150}, {120, 3, 32, 0, 150}};
    BatcherScene scenes_[2] = {{echoes_[0], 16}, {echoes_[1], 16}};
    std::vector<Stream> streams_;
    std::uint64_t next_ = 1;
};

}  // namespace

TEST("held: random moves among cancels on a short cache lose no token and double none") {
    std::mt19937_64 random(test::seed());
    RandomMoves moves(random);
    for (int i = 0; i < 3'000; i++) moves.turn();
    moves.finish();
}

TEST_MAIN()
