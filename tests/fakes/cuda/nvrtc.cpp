// The run-time compiler: checks what it is given as far as a text can be checked, and names it in an image.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <sstream>

#include "driver.h"
#include "image.h"

namespace {

enum : int { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };

constexpr int ARCHITECTURES[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

struct Program {
    std::string name, source, log, image;
    std::map<std::string, std::string> headers;
    bool compiled = false, real = false;
};

// Every file that `text` includes, itself or through others. False: one was not provided, which the log then says.
bool follow(Program& program, const std::string& name, const std::string& text, std::set<std::string>& seen) {
    std::istringstream lines(text);
    int number = 0;
    for (std::string line; std::getline(lines, line);) {
        ++number;
        if (line.rfind("#include", 0) != 0) continue;
        std::size_t open = line.find_first_of("\"<"), close = line.find_last_of("\">");
        std::string included = close > open && open != std::string::npos ? line.substr(open + 1, close - open - 1) : "";
        auto header = program.headers.find(included);
        if (header == program.headers.end()) {
            // The host's face of compat.cuh, which this compiler never reads.
            if (included == "simt.h") continue;
            program.log = name + "(" + std::to_string(number) + "): catastrophic error: cannot open source file \"" + included + "\"\n";
            return false;
        }
        if (seen.insert(included).second && !follow(program, included, header->second, seen)) return false;
    }
    return true;
}

bool known(const std::string& architecture) {
    std::string digits = architecture.substr(architecture.find('_') + 1);
    if (!digits.empty() && (digits.back() == 'a' || digits.back() == 'f')) digits.pop_back();
    for (int one : ARCHITECTURES) {
        if (digits == std::to_string(one)) return true;
    }
    return false;
}

std::string hexadecimal(std::uint64_t number) {
    char text[20];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
    return text;
}

}  // namespace

API int nvrtcVersion(int* major, int* minor) {
    *major = 13;
    *minor = 0;
    return SUCCESS;
}

API int nvrtcGetNumSupportedArchs(int* count) { return *count = sizeof ARCHITECTURES / sizeof *ARCHITECTURES, SUCCESS; }
API int nvrtcGetSupportedArchs(int* to) { return std::memcpy(to, ARCHITECTURES, sizeof ARCHITECTURES), SUCCESS; }

API int nvrtcCreateProgram(void** handle, const char* source, const char* name, int count, const char* const* headers,
                           const char* const* names) {
    if (source == nullptr || count < 0 || (count > 0 && (headers == nullptr || names == nullptr))) return INVALID_INPUT;
    auto* program = new Program;
    program->name = name == nullptr ? "default_program" : name;
    program->source = source;
    for (int at = 0; at < count; ++at) program->headers[names[at]] = headers[at];
    *handle = program;
    return SUCCESS;
}

API int nvrtcDestroyProgram(void** handle) {
    if (handle == nullptr || *handle == nullptr) return INVALID_PROGRAM;
    delete static_cast<Program*>(*handle);
    return SUCCESS;
}

API int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
    auto* program = static_cast<Program*>(handle);
    if (program == nullptr) return INVALID_PROGRAM;
    std::string element, architecture = "compute_75";
    for (int at = 0; at < count; ++at) {
        std::string option = options[at];
        if (option.rfind("--gpu-architecture=", 0) == 0) architecture = option.substr(19);
        if (option == "-DELEMENT_F32") element = "f32";
        if (option == "-DELEMENT_BF16") element = "bf16";
        if (option.empty() || option[0] != '-' || !known(architecture)) {
            program->log = "nvrtc: error: invalid value for " + option + "\n";
            return INVALID_OPTION;
        }
    }
    program->log.clear();
    // What it says of every program, where it is to refuse them.
    if (const char* refusal = std::getenv("PLIMSOLL_FAKE_NVRTC_REFUSES")) return program->log = refusal, COMPILATION;
    std::set<std::string> included;
    if (!follow(*program, program->name, program->source, included)) return COMPILATION;
    if (element.empty()) {
        program->log = program->name + ": error: compile with -DELEMENT_F32 or -DELEMENT_BF16\n";
        return COMPILATION;
    }
    std::size_t slash = program->name.rfind('/');
    std::string stem = program->name.substr(slash == std::string::npos ? 0 : slash + 1);
    stem = stem.substr(0, stem.find('.'));
    program->image = std::string(fake::IMAGE_HEAD) + "program " + stem + "\nelement " + element + "\narchitecture " + architecture +
                     "\nsource " + stem + ".cu " + hexadecimal(fake::hash_of(program->source)) + "\n";
    for (const std::string& name : included) {
        program->image += "source " + name + " " + hexadecimal(fake::hash_of(program->headers[name])) + "\n";
    }
    program->compiled = true;
    program->real = architecture.rfind("sm_", 0) == 0;
    return SUCCESS;
}

API int nvrtcGetProgramLogSize(void* handle, std::size_t* bytes) {
    return *bytes = static_cast<Program*>(handle)->log.size() + 1, SUCCESS;
}
API int nvrtcGetProgramLog(void* handle, char* to) { return std::strcpy(to, static_cast<Program*>(handle)->log.c_str()), SUCCESS; }

// The size counts the closing zero, as for real PTX; the image of a real architecture has one too, which does no harm.
API int nvrtcGetPTXSize(void* handle, std::size_t* bytes) {
    auto* program = static_cast<Program*>(handle);
    return program->compiled ? (*bytes = program->image.size() + 1, SUCCESS) : INVALID_PROGRAM;
}
API int nvrtcGetPTX(void* handle, char* to) { return std::strcpy(to, static_cast<Program*>(handle)->image.c_str()), SUCCESS; }
API int nvrtcGetCUBINSize(void* handle, std::size_t* bytes) {
    auto* program = static_cast<Program*>(handle);
    return program->compiled ? (*bytes = program->real ? program->image.size() + 1 : 0, SUCCESS) : INVALID_PROGRAM;
}
API int nvrtcGetCUBIN(void* handle, char* to) {
    return static_cast<Program*>(handle)->real ? nvrtcGetPTX(handle, to) : INVALID_PROGRAM;
}

API const char* nvrtcGetErrorString(int result) {
    switch (result) {
        case SUCCESS: return "NVRTC_SUCCESS";
        case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
        case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
        case COMPILATION: return "NVRTC_ERROR_COMPILATION";
        default: return "NVRTC_ERROR unknown";
    }
}
