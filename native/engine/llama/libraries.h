// The engine libraries as they are in this process: whether they are the ones this module was compiled for, and the
// processor-specific part of them.
#pragma once

#include <string>

#include "core/status.h"
#include "ggml-backend-impl.h"

namespace sllm::llama {

struct LibraryVersions {
    std::string llama;
    std::string ggml;
    std::string ggml_commit;
};

LibraryVersions loaded_versions();

// The processor's variant of the CPU backend, which tells its instruction set, and the XXH3 over the files of all
// libraries that compute: another build of the same version adds up in another order.
std::string loaded_build();

// LIBRARY_VERSION unless these are exactly the versions whose internals are relied on (see native/README.md).
Status check_versions(const LibraryVersions &versions);

// Compares the library's view of a buffer type and of a buffer with the structs this module was compiled with: what its
// functions answer must be what lies at our offsets, and function pointers must point into the library. Calls none of
// the pointers before that is known. LIBRARY_VERSION when anything differs.
Status check_buffer_type(ggml_backend_buffer_type *type);

// All of the above, the processor's variant of the CPU backend (LIBRARY_MISSING when the folder has none that runs on
// it), and the log; done once per process and then remembered. [any]
Status prepare_libraries(const std::string &folder);

}  // namespace sllm::llama
