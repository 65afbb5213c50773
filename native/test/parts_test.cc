// The pure parts: draw, GGUF headers, conversations, the event queue.
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "core/digest.h"
#include "engine/device_split.h"
#include "engine/draw.h"
#include "engine/event_queue.h"
#include "engine/gguf_header.h"
#include "engine/messages.h"
#include "test/harness.h"

namespace {

using sllm::Code;

// Writes GGUF headers byte by byte.
class HeaderWriter {
public:
    HeaderWriter(std::uint64_t tensors, std::uint64_t pairs, std::uint32_t version = 3) {
        number<std::uint32_t>(0x46554747);
        number(version);
        number(tensors);
        number(pairs);
    }
    template <typename Number>
    HeaderWriter &number(Number value) {
        std::array<std::uint8_t, sizeof value> raw;
        std::memcpy(raw.data(), &value, sizeof value);
        bytes.insert(bytes.end(), raw.begin(), raw.end());
        return *this;
    }
    HeaderWriter &string(const std::string &text) {
        number<std::uint64_t>(text.size());
        bytes.insert(bytes.end(), text.begin(), text.end());
        return *this;
    }
    HeaderWriter &pair_u32(const std::string &key, std::uint32_t value) {
        return string(key).number<std::uint32_t>(4).number(value);
    }
    HeaderWriter &array(const std::string &key, std::uint32_t type, std::uint64_t n) {
        return string(key).number<std::uint32_t>(9).number(type).number(n);
    }
    HeaderWriter &tensor(const std::string &name, std::uint64_t offset) {
        return string(name).number<std::uint32_t>(2).number<std::uint64_t>(8).number<std::uint64_t>(4)
            .number<std::uint32_t>(0).number(offset);
    }
    std::vector<std::uint8_t> padded(std::size_t alignment = 32) const {
        auto all = bytes;
        all.resize((all.size() + alignment - 1) / alignment * alignment);
        return all;
    }

    std::vector<std::uint8_t> bytes;
};

HeaderWriter good_header() {
    HeaderWriter w(2, 3);
    w.pair_u32("general.alignment", 128);
    w.array("tokens", 8, 2).string("a").string("bc");
    w.array("scores", 6, 2).number(1.0f).number(2.0f);
    w.tensor("one", 0).tensor("two", 256);
    return w;
}

Code parse(const std::vector<std::uint8_t> &bytes) {
    sllm::GgufHeader header;
    return sllm::parse_gguf_header(bytes, &header).code();
}

}  // namespace

TEST("digest: XXH3 of known bytes") {
    CHECK_EQ(sllm::xxh3(nullptr, 0), 0x2D06800538D394C2u);
    CHECK_EQ(sllm::xxh3("a", 1), 0xE6C632B61E964E1Fu);
}

TEST("draw: a function of seed and position, below one, and fixed for ever") {
    CHECK_EQ(sllm::draw(42, 7), sllm::draw(42, 7));
    CHECK(sllm::draw(42, 7) != sllm::draw(42, 8));
    CHECK(sllm::draw(42, 7) != sllm::draw(43, 7));
    // A generation that began under another release continues with the same numbers.
    CHECK_EQ(sllm::draw(0, 0), 0x1.3501cc8bc51d5p-1);
    CHECK_EQ(sllm::draw(0xFFFFFFFFFFFFFFFF, 1000), 0x1.23878b8cfec44p-2);
}

TEST("draw: even over positions and over seeds") {
    constexpr int bins = 20;
    constexpr int n = 20'000;
    for (const bool over_seeds : {false, true}) {
        std::array<int, bins> count{};
        for (std::uint64_t i = 0; i < n; i++) {
            const double u = over_seeds ? sllm::draw(i, 3) : sllm::draw(9, i);
            CHECK(u >= 0 && u < 1);
            count[static_cast<std::size_t>(u * bins)]++;
        }
        double chi2 = 0;
        for (const int c : count) chi2 += (c - n / bins) * (c - n / bins) / static_cast<double>(n / bins);
        CHECK(chi2 < 60);  // 19 degrees of freedom: a fair generator stays below with probability 1 - 4e-6
    }
}

TEST("gguf: alignment, data offset and tensor offsets are read past vocabularies") {
    sllm::GgufHeader header;
    const auto bytes = good_header().padded(128);
    CHECK_OK(sllm::parse_gguf_header(bytes, &header));
    CHECK_EQ(header.alignment, 128u);
    CHECK_EQ(header.data_offset, bytes.size());
    CHECK_EQ(header.tensor_offsets.size(), 2u);
    CHECK_EQ(header.tensor_offsets.at("two"), 256u);
}

TEST("gguf: every cut of a header is refused") {
    const auto whole = good_header().bytes;
    for (std::size_t n = 0; n < whole.size(); n++) {
        CHECK_EQ(parse({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)}), Code::corrupt);
    }
}

TEST("gguf: hostile counts, lengths, depths and doubles are refused") {
    constexpr std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
    CHECK_EQ(parse(HeaderWriter(huge, 0).padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(0, huge).padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(0, 0, 1).padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(0, 1).number(huge).padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(0, 1).pair_u32("general.alignment", 0).padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(0, 1).pair_u32("general.alignment", 48).padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(0, 1).string("x").number<std::uint32_t>(13).padded()), Code::corrupt);
    HeaderWriter nested(0, 1);
    nested.string("x").number<std::uint32_t>(9);
    for (int i = 0; i < 100; i++) nested.number<std::uint32_t>(9).number<std::uint64_t>(1);
    CHECK_EQ(parse(nested.padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(0, 1).string("x").number<std::uint32_t>(9).number<std::uint32_t>(10).number(huge / 8)
                       .padded()),
             Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(2, 0).tensor("a", 0).tensor("a", 32).padded()), Code::corrupt);
    CHECK_EQ(parse(HeaderWriter(1, 0).tensor("a", 7).padded()), Code::corrupt);
}

TEST("gguf: random damage is refused or read, never more") {
    std::mt19937_64 random(test::seed());
    const auto whole = good_header().padded(128);
    for (int round = 0; round < 20'000; round++) {
        auto bytes = whole;
        for (std::uint64_t n = 1 + random() % 4; n > 0; n--) {
            bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
        }
        sllm::GgufHeader header;
        const sllm::Status status = sllm::parse_gguf_header(bytes, &header);
        CHECK(status.ok() ? header.data_offset <= bytes.size() : status.code() == Code::corrupt);
    }
}

TEST("devices: names and shares are read, anything else is refused") {
    std::vector<sllm::DeviceShare> devices;
    CHECK_OK(sllm::parse_devices("", &devices));
    CHECK(devices.empty());
    CHECK_OK(sllm::parse_devices("CUDA0=24,CUDA1=0.5,Vulkan3", &devices));
    CHECK_EQ(devices.size(), 3u);
    CHECK_EQ(devices[0].name, "CUDA0");
    CHECK_EQ(devices[0].share, 24.0);
    CHECK_EQ(devices[1].share, 0.5);
    CHECK_EQ(devices[2].name, "Vulkan3");
    CHECK_EQ(devices[2].share, 1.0);
    for (const char *text : {",", "CUDA0,,CUDA1", "=1", "CUDA0=", "CUDA0=0", "CUDA0=-1", "CUDA0=nan", "CUDA0=1x",
                             "CUDA0,CUDA0", "CUDA0=1e99"}) {
        CHECK_EQ(sllm::parse_devices(text, &devices).code(), Code::invalid_argument);
    }
    std::string many = "d";
    for (int i = 0; i < 16; i++) many += ",d" + std::to_string(i);
    CHECK_EQ(sllm::parse_devices(many, &devices).code(), Code::invalid_argument);
}

TEST("devices: layers are counted with their bytes, tied embeddings once more as the output") {
    sllm::GgufHeader header;
    header.tensor_offsets = {{"token_embd.weight", 0}, {"output_norm.weight", 1000}, {"blk.0.attn.weight", 1100},
                             {"blk.1.attn.weight", 1300}, {"blk.1.ffn.weight", 1400}, {"rope_freqs.weight", 1900}};
    const auto tied = sllm::layer_bytes(header, 2000);
    CHECK(tied == (std::vector<std::uint64_t>{200, 600, 1100}));
    header.tensor_offsets.emplace("output.weight", 1950);
    CHECK(sllm::layer_bytes(header, 2000) == (std::vector<std::uint64_t>{200, 600, 150}));
}

TEST("devices: every layer has one device, and borders lie nearest to where the shares put them") {
    const std::vector<std::uint64_t> layers{10, 10, 10, 10, 40};
    const auto split = [&](std::vector<double> shares) {
        std::vector<sllm::DeviceShare> devices;
        for (const double share : shares) devices.push_back({"d", share});
        return sllm::split_layers(layers, devices);
    };
    CHECK(split({1}) == (std::vector<std::uint32_t>{5}));
    CHECK(split({1, 1}) == (std::vector<std::uint32_t>{4, 1}));
    CHECK(split({1, 3}) == (std::vector<std::uint32_t>{2, 3}));
    CHECK(split({1e9, 1}) == (std::vector<std::uint32_t>{5, 0}));
    CHECK(split({1, 1, 1, 1, 1, 1, 1, 1}) == (std::vector<std::uint32_t>{1, 1, 1, 1, 0, 0, 1, 0}));
}

TEST("messages: a conversation is read, anything else is refused with its place") {
    std::vector<sllm::Message> messages;
    const char *good = R"([{"role":"user","content":"h\u00e9"},{"role":"x","content":"","name":1}])";
    CHECK_OK(sllm::parse_messages(good, &messages));
    CHECK_EQ(messages.size(), 2u);
    CHECK_EQ(messages[0].content, "h\xC3\xA9");
    for (const char *bad : {"", "{}", "[]", "[1]", R"([{"role":"user"}])", R"([{"role":"user","content":null}])",
                            R"([{"role":"user","content":"a"}] x)", R"([{"role":1,"content":"a"}])"}) {
        CHECK_EQ(sllm::parse_messages(bad, &messages).code(), Code::invalid_argument);
    }
    const sllm::Status status = sllm::parse_messages(R"([{"role":"a","content":"b"},{"role":"a"}])", &messages);
    CHECK(status.message().find("messages[1].content") != std::string::npos);
}

TEST("events: a drain takes what fits and leaves the rest in order") {
    sllm::EventQueue queue;
    for (std::uint64_t i = 0; i < 3; i++) {
        sllm_event event{};
        event.request = i;
        queue.push(event, std::string(4, static_cast<char>('a' + i)));
    }
    std::array<sllm_event, 8> out;
    std::array<char, 9> text;
    std::uint64_t n = 0;
    std::uint64_t text_n = 0;
    CHECK_EQ(queue.drain(out.data(), out.size(), &n, text.data(), 3, &text_n).code(), Code::buffer_too_small);
    CHECK_EQ(n, 0u);
    CHECK_OK(queue.drain(out.data(), out.size(), &n, text.data(), text.size(), &text_n));
    CHECK_EQ(n, 2u);
    CHECK_EQ(std::string(text.data(), text_n), "aaaabbbb");
    CHECK_EQ(out[1].text_offset, 4u);
    CHECK_OK(queue.drain(out.data(), out.size(), &n, text.data(), text.size(), &text_n));
    CHECK_EQ(n, 1u);
    CHECK_EQ(out[0].request, 2u);
}

TEST("events: a waiter wakes for an event, for the end, and when the time is up") {
    sllm::EventQueue queue;
    queue.wait(1'000);
    std::thread pusher([&] { queue.push({}, ""); });
    queue.wait(10'000'000);
    pusher.join();
    std::array<sllm_event, 1> out;
    std::uint64_t n = 0;
    std::uint64_t text_n = 0;
    CHECK_OK(queue.drain(out.data(), 1, &n, nullptr, 0, &text_n));
    CHECK_EQ(n, 1u);
    std::thread closer([&] { queue.close(); });
    queue.wait(std::numeric_limits<std::uint64_t>::max());
    closer.join();
}

TEST_MAIN()
