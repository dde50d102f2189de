// Prints the FNV-1a hash (64 bits) of a file, as sixteen hexadecimal digits.

#include <cstdio>

int main(int count, char** arguments) {
    std::FILE* file = count == 2 ? std::fopen(arguments[1], "rb") : nullptr;
    if (file == nullptr) return 1;
    unsigned long long hash = 0xcbf29ce484222325;
    for (int byte; (byte = std::fgetc(file)) != EOF;) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
    std::printf("%016llx\n", hash);
    return 0;
}
