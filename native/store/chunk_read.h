// One chunk of weights.bin on its way into the arena: blocks that are read side by side, arrive in any order, and go
// into the chunk's digest in theirs, while later ones are still being read.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/digest.h"

namespace sllm {

// A piece of a chunk that is read at once. It lies in one chunk of the arena.
struct Block {
    std::uint8_t *out = nullptr;
    std::uint64_t offset = 0;  // in the file
    std::uint32_t bytes = 0;
    bool arrived = false;
};

// Guarded by the store's mutex, except digest().
class ChunkRead {
public:
    ChunkRead(std::uint64_t number, std::uint64_t expected, std::vector<Block> blocks, bool cached)
        : number_(number), expected_(expected), blocks_(std::move(blocks)), cached_(cached) {}

    std::uint64_t number() const { return number_; }
    std::uint64_t offset() const { return blocks_.front().offset; }
    std::uint64_t bytes() const { return blocks_.back().offset + blocks_.back().bytes - offset(); }
    const Block &block(std::size_t i) const { return blocks_[i]; }
    // Whether the page cache had all of it when it was begun, and is to be read.
    bool cached() const { return cached_; }

    // The block to read next; all_taken() when there is none.
    std::size_t next() const { return next_; }
    bool all_taken() const { return next_ == blocks_.size(); }
    std::size_t take() { return next_++; }

    void arrive(std::size_t block) { blocks_[block].arrived = true; }
    bool can_claim() const { return !claimed_ && digested_ < blocks_.size() && blocks_[digested_].arrived; }
    // Claims the blocks that can be digested now for the calling thread: none when there are none, or another thread is
    // at it.
    std::span<const Block> claim();
    // Takes claimed blocks into the digest. Not guarded: it takes long, and only one thread has a claim.
    void digest(std::span<const Block> claimed);
    void end_claim(std::size_t blocks);

    bool complete() const { return digested_ == blocks_.size(); }
    std::uint64_t expected() const { return expected_; }
    std::uint64_t found() const { return digest_.value(); }

    // Begins anew, around the page cache, after wrong bytes. False the second time.
    bool start_over();

private:
    const std::uint64_t number_;
    const std::uint64_t expected_;
    std::vector<Block> blocks_;
    bool cached_;
    bool read_again_ = false;
    bool claimed_ = false;
    std::size_t next_ = 0;      // first block that was not handed out
    std::size_t digested_ = 0;  // blocks in the digest
    Xxh3 digest_;
};

}  // namespace sllm
