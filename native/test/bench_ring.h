// Reads pieces of a file with one io_uring, by the system calls themselves; see bench_reader.h.
#pragma once

#include "test/bench_reader.h"

namespace bench {

// Keeps `depth` reads in flight. A short read is continued. Throws std::runtime_error on any failure, also where the
// system has no io_uring.
void read_with_ring(int fd, unsigned depth, const std::vector<Piece> &pieces, const OnPiece &on_piece);

}  // namespace bench
