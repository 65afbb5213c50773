// Which blocks may be digested, and by whom.
#include "store/chunk_read.h"

namespace sllm {

std::span<const Block> ChunkRead::claim() {
    if (claimed_) return {};
    std::size_t end = digested_;
    while (end < blocks_.size() && blocks_[end].arrived) end++;
    claimed_ = end > digested_;
    return std::span<const Block>(blocks_).subspan(digested_, end - digested_);
}

void ChunkRead::digest(std::span<const Block> claimed) {
    for (const Block &block : claimed) digest_.update(block.out, block.bytes);
}

void ChunkRead::end_claim(std::size_t blocks) {
    digested_ += blocks;
    claimed_ = false;
}

bool ChunkRead::start_over() {
    if (read_again_) return false;
    read_again_ = true;
    cached_ = false;
    next_ = digested_ = 0;
    for (Block &block : blocks_) block.arrived = false;
    digest_.reset();
    return true;
}

}  // namespace sllm
