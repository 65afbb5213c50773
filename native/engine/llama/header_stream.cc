// The stream's callbacks.
#include "engine/llama/header_stream.h"

#include <algorithm>
#include <cstring>

namespace sllm::llama {

HeaderStream::HeaderStream(std::span<const std::uint8_t> header, std::uint64_t file_bytes)
    : header_(header), file_bytes_(file_bytes) {
    cookie_io_functions_t functions{};
    functions.read = read;
    functions.seek = seek;
    file_ = ::fopencookie(this, "rb", functions);
    // The library reads numbers and strings one by one.
    if (file_ != nullptr) std::setvbuf(file_, nullptr, _IOFBF, std::size_t{1} << 18);
}

HeaderStream::~HeaderStream() {
    if (file_ != nullptr) std::fclose(file_);
}

ssize_t HeaderStream::read(void *self, char *out, std::size_t bytes) {
    auto &stream = *static_cast<HeaderStream *>(self);
    if (stream.position_ >= stream.header_.size()) return 0;
    const std::size_t n = std::min<std::size_t>(bytes, stream.header_.size() - stream.position_);
    std::memcpy(out, stream.header_.data() + stream.position_, n);
    stream.position_ += n;
    return static_cast<ssize_t>(n);
}

int HeaderStream::seek(void *self, off64_t *offset, int whence) {
    auto &stream = *static_cast<HeaderStream *>(self);
    const std::uint64_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? stream.position_ : stream.file_bytes_;
    stream.position_ = stream.withheld_ ? stream.file_bytes_ : base + static_cast<std::uint64_t>(*offset);
    *offset = static_cast<off64_t>(stream.position_);
    return 0;
}

}  // namespace sllm::llama
