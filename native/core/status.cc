// Texts and codes of failed system calls.
#include "core/status.h"

#include <cerrno>
#include <system_error>

namespace sllm {

std::string errno_text(int error) { return std::generic_category().message(error); }

Status system_status(const std::string &what, int error) {
    const Code code = error == ENOMEM ? Code::out_of_memory : error == ENOENT ? Code::not_found : Code::io;
    return {code, what + ": " + errno_text(error)};
}

}  // namespace sllm
