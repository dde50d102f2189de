// cuBLASLt as far as a cache of plans needs it: bf16, f32 and e4m3 matrices, sums in f32, transposes, beta, a bias, and
// several algorithms that add in different orders. It refuses what it does not know. An algorithm writes over as much
// of the workspace as it asked for.

#include <cmath>
#include <cstring>

#include "block.h"
#include "driver.h"

namespace {

enum : int { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum : int { R_32F = 0, R_16BF = 14, R_8F_E4M3 = 28, COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77 };
enum : int { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4 };

struct Matmul {
    int compute_type, scale_type, pointer_mode = 0, transposed_a = 0, transposed_b = 0, epilogue = EPILOGUE_DEFAULT, bias_type = -1;
    CUdeviceptr bias = 0;
};

struct Layout {
    int type;
    std::uint64_t rows, columns;
    std::int64_t leading;
    int order = 0, batch = 1;  // order 0: by columns
    std::int64_t batch_stride = 0;
};

struct Preference {
    std::size_t workspace = 0;
};

struct Algorithm {
    std::uint64_t words[8];
};

struct Candidate {
    Algorithm algorithm;
    std::size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

constexpr std::uint64_t ALGORITHM = 0x706c696d736f6c6c;  // marks words[0]; words[1] is which, words[2] its workspace
constexpr std::size_t WORKSPACE_OF[] = {0, 64 << 10, 1 << 20};

template <class T>
int take(T& to, const void* from, std::size_t bytes) {
    if (bytes < sizeof(T)) return INVALID_VALUE;
    std::memcpy(&to, from, sizeof(T));
    return SUCCESS;
}

bool known(int type) { return type == R_32F || type == R_16BF || type == R_8F_E4M3; }
std::size_t bytes_of(int type) { return type == R_32F ? 4 : type == R_16BF ? 2 : 1; }

float from_e4m3(unsigned char bits) {
    const int exponent = bits >> 3 & 15, fraction = bits & 7;
    if (exponent == 15 && fraction == 7) return NAN;
    const float magnitude = exponent == 0 ? std::ldexp(float(fraction), -9) : std::ldexp(float(8 + fraction), exponent - 10);
    return bits & 0x80 ? -magnitude : magnitude;
}

float load(int type, CUdeviceptr base, std::size_t at) {
    if (type == R_32F) return reinterpret_cast<const float*>(base)[at];
    if (type == R_8F_E4M3) return from_e4m3(reinterpret_cast<const unsigned char*>(base)[at]);
    return __uint_as_float(unsigned(reinterpret_cast<const unsigned short*>(base)[at]) << 16);
}

void store(int type, CUdeviceptr base, std::size_t at, float value) {
    if (type == R_32F) {
        reinterpret_cast<float*>(base)[at] = value;
    } else {
        reinterpret_cast<unsigned short*>(base)[at] = bf16_bits(value);
    }
}

bool is_whole(const Layout& of, CUdeviceptr base) {
    std::size_t last = std::size_t(of.leading) * (of.columns - 1) + of.rows;
    return base % bytes_of(of.type) == 0 && fake::is_device_memory(base, last * bytes_of(of.type));
}

// Rows of op(a) and columns of op(b), each in order of the inner dimension.
std::vector<float> lines(const Layout& of, CUdeviceptr base, bool along_columns, std::size_t count, std::size_t inner) {
    std::vector<float> values(count * inner);
    for (std::size_t line = 0; line < count; ++line) {
        for (std::size_t k = 0; k < inner; ++k) {
            std::size_t at = along_columns ? line * std::size_t(of.leading) + k : k * std::size_t(of.leading) + line;
            values[line * inner + k] = load(of.type, base, at);
        }
    }
    return values;
}

float product(const float* a, const float* b, std::size_t inner, std::uint64_t parts) {
    float total = 0;
    for (std::uint64_t part = 0; part < parts; ++part) {
        float sum = 0;
        for (std::size_t k = part; k < inner; k += parts) sum += a[k] * b[k];
        total += sum;
    }
    return total;
}

// The shapes and types must fit, and be among those known.
int check(const Matmul& matmul, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    const std::uint64_t m = d.rows, n = d.columns, inner = matmul.transposed_a ? a.rows : a.columns;
    if ((matmul.transposed_a ? a.columns : a.rows) != m || (matmul.transposed_b ? b.rows : b.columns) != n ||
        (matmul.transposed_b ? b.columns : b.rows) != inner || c.rows != m || c.columns != n) {
        return INVALID_VALUE;
    }
    for (const Layout* layout : {&a, &b, &c, &d}) {
        if (layout->leading < std::int64_t(layout->rows) || layout->rows == 0 || layout->columns == 0) return INVALID_VALUE;
        if (!known(layout->type) || layout->order != 0 || layout->batch != 1) return NOT_SUPPORTED;
    }
    const bool narrow = a.type == R_8F_E4M3;
    if (narrow) {
        // As the library's documentation has it: from Ada on, a transposed times a plain operand, everything in units of 16 bytes.
        int major = 0, minor = 0;
        fake::capability(&major, &minor);
        if (10 * major + minor < 89 || !matmul.transposed_a || matmul.transposed_b || (m | n | inner) % 16 != 0) return NOT_SUPPORTED;
    }
    bool types = a.type == b.type && c.type == d.type && (narrow ? d.type == R_16BF : a.type == R_16BF || d.type == R_32F);
    bool computes = (matmul.compute_type == COMPUTE_32F || matmul.compute_type == COMPUTE_32F_FAST_TF32) && matmul.scale_type == R_32F;
    bool epilogue = matmul.epilogue == EPILOGUE_DEFAULT || matmul.epilogue == EPILOGUE_BIAS;
    return types && computes && epilogue && matmul.pointer_mode == 0 ? SUCCESS : NOT_SUPPORTED;
}

}  // namespace

API int cublasLtCreate(void** handle) {
    if (fake::usable() != CUDA_SUCCESS) return NOT_INITIALIZED;
    *handle = new int(0);
    return SUCCESS;
}
API int cublasLtDestroy(void* handle) { return delete static_cast<int*>(handle), SUCCESS; }
API std::size_t cublasLtGetVersion() { return 130000; }
API const char* cublasLtGetStatusName(int status) {
    switch (status) {
        case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "CUBLAS_STATUS unknown";
    }
}
API const char* cublasLtGetStatusString(int status) { return cublasLtGetStatusName(status); }

API int cublasLtMatmulDescCreate(void** handle, int compute_type, int scale_type) {
    *handle = new Matmul{compute_type, scale_type};
    return SUCCESS;
}
API int cublasLtMatmulDescDestroy(void* handle) { return delete static_cast<Matmul*>(handle), SUCCESS; }
API int cublasLtMatmulDescSetAttribute(void* handle, int attribute, const void* value, std::size_t bytes) {
    auto& matmul = *static_cast<Matmul*>(handle);
    switch (attribute) {
        case 0: return take(matmul.compute_type, value, bytes);
        case 1: return take(matmul.scale_type, value, bytes);
        case 2: return take(matmul.pointer_mode, value, bytes);
        case 3: return take(matmul.transposed_a, value, bytes);
        case 4: return take(matmul.transposed_b, value, bytes);
        case 7: return take(matmul.epilogue, value, bytes);
        case 8: return take(matmul.bias, value, bytes);
        case 26: return take(matmul.bias_type, value, bytes);
        case 15: case 25: return SUCCESS;  // how many multiprocessors, how fast to add: no other result here
        default: return NOT_SUPPORTED;
    }
}

API int cublasLtMatrixLayoutCreate(void** handle, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t leading) {
    *handle = new Layout{type, rows, columns, leading};
    return SUCCESS;
}
API int cublasLtMatrixLayoutDestroy(void* handle) { return delete static_cast<Layout*>(handle), SUCCESS; }
API int cublasLtMatrixLayoutSetAttribute(void* handle, int attribute, const void* value, std::size_t bytes) {
    auto& layout = *static_cast<Layout*>(handle);
    switch (attribute) {
        case 0: return take(layout.type, value, bytes);
        case 1: return take(layout.order, value, bytes);
        case 2: return take(layout.rows, value, bytes);
        case 3: return take(layout.columns, value, bytes);
        case 4: return take(layout.leading, value, bytes);
        case 5: return take(layout.batch, value, bytes);
        case 6: return take(layout.batch_stride, value, bytes);
        default: return NOT_SUPPORTED;
    }
}

API int cublasLtMatmulPreferenceCreate(void** handle) { return *handle = new Preference, SUCCESS; }
API int cublasLtMatmulPreferenceDestroy(void* handle) { return delete static_cast<Preference*>(handle), SUCCESS; }
API int cublasLtMatmulPreferenceSetAttribute(void* handle, int attribute, const void* value, std::size_t bytes) {
    return attribute == 1 ? take(static_cast<Preference*>(handle)->workspace, value, bytes) : SUCCESS;
}

API int cublasLtMatmulAlgoGetHeuristic(void*, void* matmul, void* a, void* b, void* c, void* d, void* preference, int asked,
                                       Candidate* to, int* found) {
    *found = 0;
    int result = check(*static_cast<Matmul*>(matmul), *static_cast<Layout*>(a), *static_cast<Layout*>(b), *static_cast<Layout*>(c),
                       *static_cast<Layout*>(d));
    if (result != SUCCESS) return result;
    for (std::uint64_t which = 0; which < 3 && *found < asked; ++which) {
        if (WORKSPACE_OF[which] > static_cast<Preference*>(preference)->workspace) continue;
        Candidate& candidate = to[(*found)++];
        candidate = Candidate{};
        candidate.algorithm = Algorithm{{ALGORITHM, which, WORKSPACE_OF[which]}};
        candidate.workspace = WORKSPACE_OF[which];
        candidate.waves = 1.0f;
    }
    return *found > 0 ? SUCCESS : NOT_SUPPORTED;
}

API int cublasLtMatmul(void*, void* matmul_handle, const void* alpha_at, const void* a_at, void* a_layout, const void* b_at,
                       void* b_layout, const void* beta_at, const void* c_at, void* c_layout, void* d_at, void* d_layout,
                       const Algorithm* algorithm, void* workspace, std::size_t workspace_bytes, void* stream) {
    const Matmul matmul = *static_cast<Matmul*>(matmul_handle);
    const Layout a = *static_cast<Layout*>(a_layout), b = *static_cast<Layout*>(b_layout), c = *static_cast<Layout*>(c_layout),
                 d = *static_cast<Layout*>(d_layout);
    auto address = [](const void* at) { return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(at)); };
    const CUdeviceptr a_base = address(a_at), b_base = address(b_at), c_base = address(c_at), d_base = address(d_at);
    const float alpha = *static_cast<const float*>(alpha_at), beta = *static_cast<const float*>(beta_at);
    int result = check(matmul, a, b, c, d);
    if (result != SUCCESS) return result;
    const std::uint64_t which = algorithm == nullptr ? 0 : algorithm->words[1];
    if (algorithm != nullptr && (algorithm->words[0] != ALGORITHM || which > 2)) return INVALID_VALUE;
    if (WORKSPACE_OF[which] > workspace_bytes) return INVALID_VALUE;
    const bool biased = matmul.epilogue == EPILOGUE_BIAS;
    const int bias_type = matmul.bias_type < 0 ? d.type : matmul.bias_type;
    const bool whole = is_whole(a, a_base) && is_whole(b, b_base) && is_whole(d, d_base) && (beta == 0 || is_whole(c, c_base)) &&
                       (!biased || fake::is_device_memory(matmul.bias, d.rows * bytes_of(bias_type))) &&
                       fake::is_device_memory(address(workspace), WORKSPACE_OF[which]);
    if (!whole) {
        fake::report("cublasLtMatmul: a matrix, the bias or the workspace is not within one allocation of device memory");
        return INVALID_VALUE;
    }
    CUresult submitted = fake::submit(stream, [=] {
        ++fake::counters.matmuls;
        simt::fill_poison(workspace, WORKSPACE_OF[which]);
        const std::size_t m = d.rows, n = d.columns, inner = matmul.transposed_a ? a.rows : a.columns;
        const std::vector<float> left = lines(a, a_base, matmul.transposed_a != 0, m, inner);
        const std::vector<float> right = lines(b, b_base, matmul.transposed_b == 0, n, inner);
        for (std::size_t column = 0; column < n; ++column) {
            for (std::size_t row = 0; row < m; ++row) {
                float value = alpha * product(&left[row * inner], &right[column * inner], inner, which + 1);
                if (beta != 0) value += beta * load(c.type, c_base, column * std::size_t(c.leading) + row);
                if (biased) value += load(bias_type, matmul.bias, row);
                store(d.type, d_base, column * std::size_t(d.leading) + row, value);
            }
        }
        return CUresult(CUDA_SUCCESS);
    });
    return submitted == CUDA_SUCCESS ? SUCCESS : EXECUTION_FAILED;
}
