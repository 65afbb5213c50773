// Generations that move between two engines of the sample model: their tokens are those of the undisturbed run, with
// all that a request can ask for.
#include <algorithm>
#include <fstream>
#include <functional>
#include <random>
#include <string>

#include "engine/llama/llama_backend.h"
#include "test/batcher_scene.h"
#include "test/harness.h"
#include "test/sample_engine.h"
#include "test/temp_folder.h"

namespace {

using sllm::Request;
using test::BatcherScene;
using test::SampleModel;
using Tokens = std::vector<std::int32_t>;

constexpr std::uint32_t output = 90;

Request request_of(const sllm::Backend &backend, std::uint64_t number, const std::string &text) {
    Request request;
    request.number = number;
    CHECK_OK(backend.tokenize(text, true, false, &request.prompt));
    request.max_tokens = output;
    request.sampling.seed = 77 + number;
    return request;
}

// One of each thing that a stream brings along.
std::vector<Request> all_kinds(const sllm::Backend &backend) {
    const auto kind = [&](double temperature) {
        static std::uint64_t number = 0;
        Request request = request_of(backend, ++number, "ROMEO:\nWhat light through yonder window breaks?");
        request.sampling.temperature = temperature;
        return request;
    };
    std::vector<Request> all{kind(0), kind(0.8)};
    Request penalties = kind(0.7);
    penalties.sampling.repeat_penalty = 1.2;
    penalties.sampling.repeat_last_n = 64;
    penalties.sampling.presence_penalty = 0.3;
    penalties.sampling.frequency_penalty = 0.2;
    all.push_back(penalties);
    Request grammar = kind(0.9);
    grammar.sampling.constraint = R"({"grammar":"root ::= line+\nline ::= [a-z ]{3,12} [.!?] \"\\n\""})";
    all.push_back(grammar);
    Request stops = kind(0.8);
    stops.stops = {"thou art a villain and a knave", "\n\n\n\n"};
    all.push_back(stops);
    Request told = kind(0.8);
    told.sampling.logprobs = 4;
    all.push_back(told);
    return all;
}

struct Whole {
    Tokens tokens;
    std::string text;
    sllm_event last{};
};

Whole undisturbed(const SampleModel &model, const Request &request) {
    const auto backend = model.open(1, 256);
    BatcherScene scene(*backend, 32);
    scene.submit(request);
    scene.run();
    const test::Answer &answer = scene.answers.at(request.number);
    return {answer.tokens, answer.text, answer.last};
}

// A stream that changes places again and again, at random cuts and in random rounds, among others that stay.
class Mover {
public:
    Mover(const SampleModel &model, std::mt19937_64 &random)
        : random_(random), backends_{model.open(3, 256), model.open(2, 320)}, scenes_{{*backends_[0], 24},
                                                                                     {*backends_[1], 17}} {
        for (std::size_t i = 0; i < 2; i++) {
            Request stays = request_of(*backends_[i], 1'000 + i, "JULIET:\nO");
            stays.ignore_eos = true;
            stays.max_tokens = 200;
            scenes_[i].submit(stays);
        }
    }

    Whole run(const Request &request) {
        Whole all;
        std::size_t at = 0;
        scenes_[at].submit(request);
        for (;;) {
            test::Answer &here = scenes_[at].answers[request.number];
            const std::size_t before = here.tokens.size();
            const std::size_t more = 1 + random_() % 12;
            step_until([&] { return here.ends > 0 || here.tokens.size() >= before + more; });
            if (here.ends == 0) at = move(request, all, at);
            if (scenes_[at].answers[request.number].ends > 0) {
                append(all, scenes_[at].answers[request.number]);
                return all;
            }
        }
    }
    std::uint64_t moves = 0;
    std::uint64_t whole_moves = 0;  // with the rows of the KV cache

private:
    static void append(Whole &all, const test::Answer &answer) {
        // The text before the cut, as the other side rebuilt it, is the text that was told here.
        if (answer.started.kind != 0 && !all.tokens.empty()) CHECK_EQ(answer.resumed_text, all.text);
        all.tokens.insert(all.tokens.end(), answer.tokens.begin(), answer.tokens.end());
        all.text += answer.text;
        all.last = answer.last;
    }

    void step_until(const std::function<bool()> &done) {
        for (int i = 0; !done(); i++) {
            CHECK(i < 10'000);
            for (BatcherScene &scene : scenes_) scene.step();
        }
    }

    // The place where it is afterwards: it may end first.
    std::size_t move(const Request &request, Whole &all, std::size_t at) {
        test::Answer &here = scenes_[at].answers[request.number];
        BatcherScene &there = scenes_[1 - at];
        Request moved = request;
        moved.held = true;
        moved.resume = all.tokens;
        moved.resume.insert(moved.resume.end(), here.tokens.begin(), here.tokens.end());
        std::size_t sent = here.tokens.size();
        moved.awaits_kv = random_() % 2 == 0;
        there.submit(moved);
        test::Answer &arriving = there.answers[request.number];
        if (moved.awaits_kv) move_kv(moved, scenes_[at], there);
        for (std::uint64_t round = random_() % 3; round > 0; round--) {
            const std::size_t rounds = arriving.held.size();
            step_until([&] { return here.ends > 0 || arriving.held.size() > rounds; });
            send(request.number, there, here, &sent, false);
        }
        if (here.ends > 0) {
            there.cancel(request.number);
            return at;
        }
        scenes_[at].hold(request.number);
        send(request.number, there, here, &sent, true);
        append(all, here);
        scenes_[at].cancel(request.number);
        moves++;
        return 1 - at;
    }

    // Of all but the last token, in parts. One of ten is not what was sent: then it is computed after all.
    void move_kv(const Request &moved, BatcherScene &from, BatcherScene &to) {
        const auto all = static_cast<std::uint32_t>(moved.prompt.size() + moved.resume.size()) - 1;
        const std::uint64_t before = to.computed_tokens();
        for (std::uint32_t part = 0; part < all;) {
            const auto step = static_cast<std::uint32_t>(1 + random_() % 40);
            const std::uint32_t end = std::min(all, part + step);
            const std::string path = folder_ / "rows";
            std::ofstream(path, std::ios::app).close();
            from.move_kv({moved.number, false, path, part, end, 0, 0});
            const auto &[status, digest] = from.answers[moved.number].kv.back();
            CHECK_EQ(status, SLLM_OK);
            const bool spoils = random_() % 40 == 0;
            to.move_kv({moved.number, true, path, part, end, all, std::stoull(digest, nullptr, 16) + (spoils ? 1 : 0)});
            CHECK_EQ(to.answers[moved.number].kv.back().first, spoils ? SLLM_E_CORRUPT : SLLM_OK);
            if (spoils) return;
            part = end;
        }
        step_until([&] { return !to.answers[moved.number].held.empty(); });
        CHECK(to.computed_tokens() - before <= 1 + moved_beside);
        whole_moves++;
    }

    static void send(std::uint64_t number, BatcherScene &there, const test::Answer &here, std::size_t *sent, bool go) {
        const Tokens more(here.tokens.begin() + static_cast<std::ptrdiff_t>(*sent), here.tokens.end());
        *sent = here.tokens.size();
        there.extend(number, more, go);
    }

    static constexpr std::uint64_t moved_beside = 16;
    std::mt19937_64 &random_;
    test::TempFolder folder_;
    std::unique_ptr<sllm::llama::LlamaBackend> backends_[2];
    BatcherScene scenes_[2];
};

void check_type(int ftype) {
    std::mt19937_64 random(test::seed());
    const SampleModel model(ftype);
    const auto backend = model.open(1, 256);
    std::uint64_t moves = 0;
    std::uint64_t whole_moves = 0;
    for (const Request &request : all_kinds(*backend)) {
        const Whole expected = undisturbed(model, request);
        Mover mover(model, random);
        const Whole found = mover.run(request);
        CHECK(found.tokens == expected.tokens);
        CHECK_EQ(found.text, expected.text);
        CHECK_EQ(found.last.status, expected.last.status);
        CHECK_EQ(found.last.index, expected.last.index);
        CHECK_EQ(found.last.prompt_tokens, expected.last.prompt_tokens);
        moves += mover.moves;
        whole_moves += mover.whole_moves;
    }
    // Short answers may end before they get there, and not every move has the rows of the cache.
    CHECK(moves > 4 && whole_moves > 0);
}

}  // namespace

TEST("moving: F16 answers are those of the undisturbed run, whatever they ask for") { check_type(-1); }

TEST("moving: Q8_0 answers are those of the undisturbed run, whatever they ask for") {
    check_type(LLAMA_FTYPE_MOSTLY_Q8_0);
}

TEST("moving: Q4_K answers are those of the undisturbed run, whatever they ask for") {
    check_type(LLAMA_FTYPE_MOSTLY_Q4_K_M);
}

TEST_MAIN()
