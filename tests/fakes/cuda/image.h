// What the compiler hands to the driver in place of machine code: which program, for which element, and from which
// text. Both faces of a test then run the sources they claim to: an image of any other text is refused.
#pragma once

#include <cstdint>
#include <string>

namespace fake {

constexpr const char* IMAGE_HEAD = "plimsoll host image\n";

// FNV-1a, 64 bits.
inline std::uint64_t hash_of(const std::string& text) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3;
    return hash;
}

// A file of kernels/ this library was built from.
struct Source {
    const char* name;
    std::uint64_t hash;
};

constexpr Source SOURCES[] = {
#include "sources.h"
};

}  // namespace fake
