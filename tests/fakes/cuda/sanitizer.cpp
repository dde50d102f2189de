// What kernels compiled with -fsanitize call when they go wrong: in place of the compiler's library, which would end the
// process, these end the launch and name the line. Arrays are checked against their declared size, every access against
// the alignment its type needs on the device, shifts against the width of what is shifted, divisors against zero.

#include <cstring>

#include "simt.h"

namespace {

struct Location {
    const char* file;
    unsigned line, column;
};
struct TypeMismatch {
    Location at;
    void* type;
    unsigned char log_alignment, kind;
};
struct OutOfBounds {
    Location at;
    void *array, *index;
};

const char* file_of(const Location& at) {
    const char* slash = std::strrchr(at.file, '/');
    return slash == nullptr ? at.file : slash + 1;
}

}  // namespace

extern "C" void __ubsan_handle_type_mismatch_v1_abort(const TypeMismatch* data, std::uintptr_t address) {
    simt::fault(simt::Code::misaligned_address, "%s:%u: %#zx is not a multiple of %u", file_of(data->at), data->at.line,
                std::size_t(address), 1u << data->log_alignment);
}

extern "C" void __ubsan_handle_out_of_bounds_abort(const OutOfBounds* data, std::uintptr_t index) {
    simt::fault(simt::Code::illegal_address, "%s:%u: index %lld is out of the array's bounds", file_of(data->at), data->at.line,
                static_cast<long long>(static_cast<std::int32_t>(index)));
}

extern "C" void __ubsan_handle_shift_out_of_bounds_abort(const Location* at, std::uintptr_t, std::uintptr_t) {
    simt::fault(simt::Code::launch_failed, "%s:%u: a shift by more than the type's width", file_of(*at), at->line);
}

extern "C" void __ubsan_handle_divrem_overflow_abort(const Location* at, std::uintptr_t, std::uintptr_t) {
    simt::fault(simt::Code::launch_failed, "%s:%u: a division by zero", file_of(*at), at->line);
}
