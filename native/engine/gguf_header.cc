// A bounded reader of GGUF versions 2 and 3 (little-endian).
#include "engine/gguf_header.h"

#include <bit>
#include <cstring>

#include "core/limits.h"

namespace sllm {

namespace {

enum ValueType : std::uint32_t { uint32_value = 4, string_value = 8, array_value = 9 };

// Bytes of a value of fixed size; 0 for strings, arrays and unknown types.
std::uint64_t fixed_size(std::uint32_t type) {
    constexpr std::uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

// A cursor that remembers its first failure: reads after it return zero, and the caller looks once.
class Cursor {
public:
    explicit Cursor(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

    template <typename Number>
    Number number() {
        Number value{};
        if (const std::uint8_t *from = take(sizeof value)) std::memcpy(&value, from, sizeof value);
        return value;
    }

    std::string string() {
        const auto n = number<std::uint64_t>();
        if (n > limits::gguf_string_bytes) fail("a string is too long");
        const std::uint8_t *from = take(n);
        return from == nullptr ? std::string() : std::string(reinterpret_cast<const char *>(from), n);
    }

    void skip_value(std::uint32_t type, int depth) {
        if (type == string_value) {
            take(number<std::uint64_t>());
        } else if (type == array_value) {
            const auto element = number<std::uint32_t>();
            const auto n = number<std::uint64_t>();
            if (n > limits::gguf_array) fail("an array is too long");
            if (depth == limits::gguf_array_depth) fail("arrays are nested too deep");
            if (const std::uint64_t size = fixed_size(element); size > 0) {
                if (!failed()) take(n * size);
            } else {
                for (std::uint64_t i = 0; i < n && !failed(); i++) skip_value(element, depth + 1);
            }
        } else if (const std::uint64_t size = fixed_size(type); size > 0) {
            take(size);
        } else {
            fail("a value has an unknown type");
        }
    }

    void fail(const char *why) {
        if (why_ == nullptr) why_ = why;
    }
    bool failed() const { return why_ != nullptr; }
    std::uint64_t at() const { return at_; }
    Status status() const {
        if (!failed()) return {};
        return {Code::corrupt, std::string("the GGUF header is broken at byte ") + std::to_string(at_) + ": " + why_};
    }

private:
    const std::uint8_t *take(std::uint64_t n) {
        if (!failed() && n > bytes_.size() - at_) fail("it ends too early");
        if (failed()) return nullptr;
        const std::uint8_t *from = bytes_.data() + at_;
        at_ += n;
        return from;
    }

    std::span<const std::uint8_t> bytes_;
    std::uint64_t at_ = 0;
    const char *why_ = nullptr;
};

void read_pairs(Cursor &cursor, std::uint64_t n, GgufHeader *out) {
    for (std::uint64_t i = 0; i < n && !cursor.failed(); i++) {
        const std::string key = cursor.string();
        const auto type = cursor.number<std::uint32_t>();
        if (key == "general.alignment" && type == uint32_value) {
            const auto alignment = cursor.number<std::uint32_t>();
            if (std::has_single_bit(alignment)) {
                out->alignment = alignment;
            } else {
                cursor.fail("general.alignment is no power of two");
            }
        } else {
            cursor.skip_value(type, 0);
        }
    }
}

void read_tensors(Cursor &cursor, std::uint64_t n, GgufHeader *out) {
    for (std::uint64_t i = 0; i < n && !cursor.failed(); i++) {
        const std::string name = cursor.string();
        const auto dimensions = cursor.number<std::uint32_t>();
        if (dimensions > 4) cursor.fail("a tensor has more than four dimensions");
        for (std::uint32_t d = 0; d < dimensions && !cursor.failed(); d++) cursor.number<std::uint64_t>();
        cursor.number<std::uint32_t>();  // the type is the engine library's business
        const auto offset = cursor.number<std::uint64_t>();
        if (offset % out->alignment != 0) cursor.fail("a tensor is not aligned");
        if (!out->tensor_offsets.emplace(name, offset).second) cursor.fail("two tensors have one name");
    }
}

}  // namespace

Status parse_gguf_header(std::span<const std::uint8_t> bytes, GgufHeader *out) {
    Cursor cursor(bytes);
    *out = GgufHeader();
    if (cursor.number<std::uint32_t>() != 0x46554747) cursor.fail("it does not begin with GGUF");
    const auto version = cursor.number<std::uint32_t>();
    if (version != 2 && version != 3) cursor.fail("its version is neither 2 nor 3");
    const auto tensors = cursor.number<std::uint64_t>();
    const auto pairs = cursor.number<std::uint64_t>();
    if (tensors > limits::tensors) cursor.fail("it names too many tensors");
    if (pairs > limits::gguf_pairs) cursor.fail("it has too many metadata pairs");
    read_pairs(cursor, pairs, out);
    read_tensors(cursor, tensors, out);
    out->data_offset = (cursor.at() + out->alignment - 1) / out->alignment * out->alignment;
    if (out->data_offset > bytes.size()) cursor.fail("it ends too early");
    return cursor.status();
}

}  // namespace sllm
