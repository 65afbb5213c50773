// UTF-8 assembly and stop strings.
#include <random>
#include <string>
#include <vector>

#include "core/utf8.h"
#include "engine/text_assembler.h"
#include "test/harness.h"

namespace {

using sllm::TextAssembler;

struct Assembled {
    std::string text;
    bool stopped = false;
};

// Feeds pieces and checks on the way that every part is whole characters.
Assembled assemble(const std::vector<std::string> &pieces, const std::vector<std::string> &stops) {
    TextAssembler assembler(stops);
    Assembled result;
    for (const std::string &piece : pieces) {
        const std::string part = assembler.push(piece);
        CHECK(sllm::is_utf8(part));
        result.text += part;
        if (assembler.stopped()) break;
    }
    const std::string rest = assembler.finish();
    CHECK(sllm::is_utf8(rest));
    result.text += rest;
    result.stopped = assembler.stopped();
    return result;
}

std::vector<std::string> single_bytes(const std::string &text) {
    std::vector<std::string> pieces;
    for (const char byte : text) pieces.emplace_back(1, byte);
    return pieces;
}

std::vector<std::string> cut(const std::string &text, std::mt19937_64 &random) {
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t n = std::min<std::size_t>(1 + random() % 7, text.size() - at);
        pieces.push_back(text.substr(at, n));
        at += n;
    }
    return pieces;
}

}  // namespace

TEST("text: a character split over tokens appears whole with its last byte") {
    TextAssembler assembler({});
    CHECK_EQ(assembler.push("a\xE2\x82"), "a");
    CHECK_EQ(assembler.push("\xAC" "b"), "\xE2\x82\xAC" "b");
    CHECK_EQ(assembler.finish(), "");
}

TEST("text: an unfinished character at the end becomes the replacement character") {
    TextAssembler assembler({});
    CHECK_EQ(assembler.push("x\xF0\x9F\x98"), "x");
    CHECK_EQ(assembler.finish(), sllm::utf8_replacement);
}

TEST("text: ill-formed bytes become one replacement character per sequence") {
    std::string out;
    const auto convert = [&out](std::string_view bytes) {
        out.clear();
        const std::size_t rest = sllm::append_utf8(bytes, &out);
        CHECK_EQ(rest, 0u);
        return out;
    };
    CHECK_EQ(convert("a\x80z"), "a\xEF\xBF\xBDz");                          // a lone continuation byte
    CHECK_EQ(convert("\xC0\xAFz"), "\xEF\xBF\xBD\xEF\xBF\xBDz");            // an overlong form
    CHECK_EQ(convert("\xED\xA0\x80z"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz");  // a surrogate
    CHECK_EQ(convert("\xF4\x90\x80\x80z"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz");  // beyond U+10FFFF
    CHECK_EQ(convert("\xE2\x82z"), "\xEF\xBF\xBDz");                        // cut short
    CHECK_EQ(convert("\xF0\x9F\x98\x80"), "\xF0\x9F\x98\x80");
}

TEST("text: what could begin a stop string is held back until it is certain") {
    TextAssembler assembler({"END"});
    CHECK_EQ(assembler.push("one E"), "one ");
    CHECK_EQ(assembler.push("N"), "");
    CHECK_EQ(assembler.push("X"), "ENX");
    CHECK(!assembler.stopped());
    CHECK_EQ(assembler.push("E"), "");
    CHECK_EQ(assembler.finish(), "E");
}

TEST("text: a stop string across tokens ends the text before it") {
    TextAssembler assembler({"\n\nUser:", "STOP"});
    CHECK_EQ(assembler.push("yes.\n"), "yes.");
    CHECK_EQ(assembler.push("\nUs"), "");
    CHECK_EQ(assembler.push("er: no"), "");
    CHECK(assembler.stopped());
    CHECK_EQ(assembler.push("more"), "");
    CHECK_EQ(assembler.finish(), "");
}

TEST("text: of several stop strings the one that is complete first wins, then the longest") {
    CHECK_EQ(assemble({"xaby"}, {"xaby", "ab"}).text, "x");
    CHECK_EQ(assemble(single_bytes("xaby"), {"xaby", "ab"}).text, "x");
    CHECK_EQ(assemble({"xaby"}, {"b", "xab"}).text, "");
}

TEST("text: a stop string that overlaps its own beginning is found") {
    const Assembled result = assemble(single_bytes("aaab"), {"aab"});
    CHECK_EQ(result.text, "a");
    CHECK(result.stopped);
}

TEST("text: the result does not depend on how the bytes were cut") {
    std::mt19937_64 random(test::seed());
    const std::string alphabet[] = {"a", "b", "c", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xFF", "\xE2\x82"};
    for (int round = 0; round < 3000; round++) {
        std::string text;
        for (std::uint64_t n = random() % 40; n > 0; n--) text += alphabet[random() % std::size(alphabet)];
        std::vector<std::string> stops;
        for (std::uint64_t n = random() % 4; n > 0; n--) {
            std::string stop;
            for (std::uint64_t k = 1 + random() % 4; k > 0; k--) stop += alphabet[random() % 6];
            stops.push_back(stop);
        }
        const Assembled whole = assemble(single_bytes(text), stops);
        for (int again = 0; again < 4; again++) {
            const Assembled pieces = assemble(cut(text, random), stops);
            CHECK_EQ(pieces.text, whole.text);
            CHECK_EQ(pieces.stopped, whole.stopped);
        }
        // Against the definition: cut the sanitised text before the stop that ends first.
        std::string clean;
        if (sllm::append_utf8(text, &clean) > 0) clean += sllm::utf8_replacement;
        std::size_t first_end = std::string::npos;
        std::size_t first_start = 0;
        for (const std::string &stop : stops) {
            const std::size_t at = clean.find(stop);
            if (at == std::string::npos) continue;
            const std::size_t end = at + stop.size();
            if (end < first_end || (end == first_end && at < first_start)) {
                first_end = end;
                first_start = at;
            }
        }
        CHECK_EQ(whole.stopped, first_end != std::string::npos);
        CHECK_EQ(whole.text, whole.stopped ? clean.substr(0, first_start) : clean);
    }
}

TEST_MAIN()
