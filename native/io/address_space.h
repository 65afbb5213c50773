// Addresses without memory, for mappings that are put there later.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "io/owned.h"

namespace sllm {

// Size of the pages one entry of a page table's upper level maps. Huge pages are mapped only where address and file
// offset agree modulo this.
inline constexpr std::uint64_t huge_page_bytes = std::uint64_t{2} << 20;

inline constexpr std::uint64_t in_huge_pages(std::uint64_t bytes) {
    return (bytes + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
}

// Reserves `bytes` of address space, rounded up to whole huge pages and aligned for them, that nobody may touch yet.
// OUT_OF_MEMORY or IO.
Status reserve_addresses(Env &env, std::uint64_t bytes, Mapping *out);

}  // namespace sllm
