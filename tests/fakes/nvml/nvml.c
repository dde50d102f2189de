/* A libnvidia-ml that answers from a script: GPUs, readings, failures and hangs that a test changes while it runs.
 *
 * The script is the file `script` beside the library itself, read anew by every call, so that each test has a copy of
 * the library, with state of its own, in a folder of its own. A line is `key value`; the last line of a key counts.
 * `N.key` is about GPU N, plain `key` about all. For every call: `key.return` is its return code, `key.sleep_ms` how
 * long it hangs. `N.return` fails every call on GPU N. It knows only what plimsoll calls, all of it read-only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, VERSION_MISMATCH = 25 };
enum { MOST_GPUS = 16, MOST_MIG = 8, MOST_TEXT = 1 << 16 };

typedef struct { int gpu, mig; } Device;
typedef struct { char text[MOST_TEXT]; } Script;
typedef struct { double at, joules, power_w; int begun; char xid[64]; } State;

static Device devices[MOST_GPUS][MOST_MIG + 1];
static State states[MOST_GPUS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void load(Script *script) {
    script->text[0] = 0;
    Dl_info own;
    if (!dladdr((void *)&load, &own)) return;
    char path[4096];
    snprintf(path, sizeof path, "%s", own.dli_fname);
    char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) + sizeof "/script" > sizeof path) return;
    strcpy(slash, "/script");
    FILE *file = fopen(path, "r");
    if (!file) return;
    script->text[fread(script->text, 1, MOST_TEXT - 1, file)] = 0;
    fclose(file);
}

/* The value of the last line of `key`, up to its end, in `out`; 0 where there is none. */
static int line_of(const Script *script, const char *key, char *out, size_t size) {
    size_t length = strlen(key);
    int found = 0;
    for (const char *at = script->text; *at;) {
        const char *end = strchrnul(at, '\n');
        if (!strncmp(at, key, length) && at[length] == ' ') {
            snprintf(out, size, "%.*s", (int)(end - at - (long)length - 1), at + length + 1);
            found = 1;
        }
        at = *end ? end + 1 : end;
    }
    return found;
}

static int text_of(const Script *script, int gpu, const char *key, char *out, size_t size) {
    char full[128];
    snprintf(full, sizeof full, "%d.%s", gpu, key);
    return (gpu >= 0 && line_of(script, full, out, size)) || line_of(script, key, out, size);
}

static unsigned long long number_of(const Script *script, int gpu, const char *key, unsigned long long otherwise) {
    char text[256];
    return text_of(script, gpu, key, text, sizeof text) ? strtoull(text, NULL, 0) : otherwise;
}

/* What every call does first: hang as long as it is told, then fail as it is told. */
static int gate(Script *script, int gpu, const char *key) {
    load(script);
    char name[128];
    snprintf(name, sizeof name, "%s.sleep_ms", key);
    unsigned long long sleep_ms = number_of(script, gpu, name, 0);
    if (sleep_ms) {
        usleep((useconds_t)(sleep_ms * 1000));
        load(script);
    }
    snprintf(name, sizeof name, "%d.return", gpu);
    char text[64];
    if (gpu >= 0 && line_of(script, name, text, sizeof text)) return atoi(text);
    snprintf(name, sizeof name, "%s.return", key);
    return (int)number_of(script, gpu, name, SUCCESS);
}

#define ENTER(gpu, key) Script *script = &(Script){{0}}; int code = gate(script, gpu, key); if (code) return code

static int number_into(Device *device, const char *key, unsigned long long otherwise, unsigned *out) {
    ENTER(device->gpu, key);
    *out = (unsigned)number_of(script, device->gpu, key, otherwise);
    return SUCCESS;
}

static int text_into(int gpu, const char *key, const char *otherwise, char *out, unsigned size) {
    ENTER(gpu, key);
    if (!text_of(script, gpu, key, out, size)) snprintf(out, size, "%s", otherwise);
    return SUCCESS;
}

/* One `;`-separated part of `mig_devices`, as `uuid|name|gpu instance|compute instance|MiB`; -1 for none. */
static int mig_part(const Script *script, Device *device, int index, int field, char *out, size_t size) {
    char all[1024], *rest = all, *part = NULL;
    if (!text_of(script, device->gpu, "mig_devices", all, sizeof all)) return 0;
    for (int at = 0; at <= index; at++) {
        part = strsep(&rest, ";");
        if (!part || !*part) return 0;
    }
    char *value = NULL;
    for (int at = 0; at <= field; at++) value = strsep(&part, "|");
    if (!value) return 0;
    snprintf(out, size, "%s", value);
    return 1;
}

int nvmlInit_v2(void) {
    ENTER(-1, "init");
    for (int gpu = 0; gpu < MOST_GPUS; gpu++)
        for (int mig = 0; mig <= MOST_MIG; mig++) devices[gpu][mig] = (Device){gpu, mig - 1};
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { return text_into(-1, "driver", "570.86.15", out, size); }
int nvmlSystemGetNVMLVersion(char *out, unsigned size) { return text_into(-1, "nvml", "12.570.86.15", out, size); }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { ENTER(-1, "cuda"); *out = (int)number_of(script, -1, "cuda", 12080); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *out) { ENTER(-1, "gpus"); *out = (unsigned)number_of(script, -1, "gpus", 1); return SUCCESS; }

int nvmlSystemGetProcessName(unsigned pid, char *out, unsigned size) {
    char key[64];
    snprintf(key, sizeof key, "process_name.%u", pid);
    ENTER(-1, key);
    return line_of(script, key, out, size) ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) {
    ENTER((int)index, "handle");
    if (index >= number_of(script, -1, "gpus", 1) || index >= MOST_GPUS) return INVALID_ARGUMENT;
    *out = &devices[index][0];
    return SUCCESS;
}

int nvmlDeviceGetName(Device *device, char *out, unsigned size) {
    ENTER(device->gpu, "name");
    if (device->mig >= 0) return mig_part(script, device, device->mig, 1, out, size) ? SUCCESS : NOT_FOUND;
    return text_into(device->gpu, "name", "NVIDIA H100 80GB HBM3", out, size);
}

int nvmlDeviceGetUUID(Device *device, char *out, unsigned size) {
    ENTER(device->gpu, "uuid");
    if (device->mig >= 0) return mig_part(script, device, device->mig, 0, out, size) ? SUCCESS : NOT_FOUND;
    char otherwise[64];
    snprintf(otherwise, sizeof otherwise, "GPU-%08x-0000-0000-0000-000000000000", 0xa0 + (unsigned)device->gpu);
    return text_into(device->gpu, "uuid", otherwise, out, size);
}

int nvmlDeviceGetVbiosVersion(Device *device, char *out, unsigned size) { return text_into(device->gpu, "vbios", "96.00.89.00.01", out, size); }

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(Device *device, Pci *out) {
    char otherwise[32];
    snprintf(otherwise, sizeof otherwise, "00000000:%02X:00.0", 0x10 + device->gpu);
    memset(out, 0, sizeof *out);
    int code = text_into(device->gpu, "bus", otherwise, out->bus_id, sizeof out->bus_id);
    snprintf(out->legacy, sizeof out->legacy, "%.12s", strlen(out->bus_id) > 4 ? out->bus_id + 4 : "");
    return code;
}

int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) {
    ENTER(device->gpu, "compute_capability");
    char text[16] = "9.0";
    text_of(script, device->gpu, "compute_capability", text, sizeof text);
    return sscanf(text, "%d.%d", major, minor) == 2 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *out) { return number_into(device, "power", 400000, out); }

/* Power integrated over wall time, refreshed every `energy_refresh_ms`, in mJ. */
static unsigned long long energy_of(const Script *script, int gpu) {
    pthread_mutex_lock(&lock);
    State *state = &states[gpu];
    double refresh = 1e-3 * (double)number_of(script, gpu, "energy_refresh_ms", 100);
    double power_w = 1e-3 * (double)number_of(script, gpu, "power", 400000);
    if (!state->begun) *state = (State){.at = now(), .joules = 1e-3 * (double)number_of(script, gpu, "energy_begin", 1000000), .begun = 1};
    while (now() >= state->at + refresh) {
        state->at += refresh;
        state->joules += refresh * power_w;
    }
    double joules = state->joules;
    pthread_mutex_unlock(&lock);
    return (unsigned long long)(1e3 * joules);
}

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *out) {
    ENTER(device->gpu, "energy");
    *out = energy_of(script, device->gpu);
    return SUCCESS;
}

/* Clock types: 0 graphics, 1 SM, 2 memory. */
int nvmlDeviceGetClockInfo(Device *device, unsigned type, unsigned *out) {
    return type == 2 ? number_into(device, "memory_clock", 2619, out) : number_into(device, "sm_clock", 1980, out);
}
int nvmlDeviceGetMaxClockInfo(Device *device, unsigned type, unsigned *out) {
    return type == 2 ? number_into(device, "memory_clock_max", 2619, out) : number_into(device, "sm_clock_max", 1980, out);
}
int nvmlDeviceGetApplicationsClock(Device *device, unsigned type, unsigned *out) {
    return type == 2 ? number_into(device, "application_memory_clock", 2619, out) : number_into(device, "application_sm_clock", 1980, out);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *out) {
    ENTER(device->gpu, "reasons");
    *out = number_of(script, device->gpu, "reasons", 0);
    return SUCCESS;
}

int nvmlDeviceGetTemperature(Device *device, unsigned sensor, unsigned *out) { (void)sensor; return number_into(device, "temperature", 55, out); }

int nvmlDeviceGetUtilizationRates(Device *device, unsigned *out) {
    int code = number_into(device, "busy", 95, &out[0]);
    return code ? code : number_into(device, "memory_busy", 60, &out[1]);
}

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory *out) {
    ENTER(device->gpu, "memory");
    if (out->version != (sizeof(Memory) | 2u << 24)) return VERSION_MISMATCH;
    out->total = number_of(script, device->gpu, "memory_total", 85899345920ull);
    char part[64];
    if (device->mig >= 0 && mig_part(script, device, device->mig, 4, part, sizeof part)) out->total = strtoull(part, NULL, 0) << 20;
    out->reserved = number_of(script, device->gpu, "memory_reserved", 0);
    out->used = number_of(script, device->gpu, "memory_used", 17179869184ull);
    out->free = out->total - out->used;
    return SUCCESS;
}

int nvmlDeviceGetCurrPcieLinkGeneration(Device *device, unsigned *out) { return number_into(device, "pcie_gen", 5, out); }
int nvmlDeviceGetMaxPcieLinkGeneration(Device *device, unsigned *out) { return number_into(device, "pcie_gen_max", 5, out); }
int nvmlDeviceGetCurrPcieLinkWidth(Device *device, unsigned *out) { return number_into(device, "pcie_width", 16, out); }
int nvmlDeviceGetMaxPcieLinkWidth(Device *device, unsigned *out) { return number_into(device, "pcie_width_max", 16, out); }
int nvmlDeviceGetPcieReplayCounter(Device *device, unsigned *out) { return number_into(device, "pcie_replays", 0, out); }
int nvmlDeviceGetPcieThroughput(Device *device, unsigned counter, unsigned *out) {
    usleep(20000); /* as the real one: it counts over 20 ms */
    return counter == 0 ? number_into(device, "pcie_tx", 1000, out) : number_into(device, "pcie_rx", 2000, out);
}

/* NVLinks: how many there are and how many of them, the first ones, are up; errors are those of each link. */
int nvmlDeviceGetNvLinkState(Device *device, unsigned link, unsigned *up) {
    ENTER(device->gpu, "nvlink");
    unsigned long long links = number_of(script, device->gpu, "nvlinks", 0);
    if (link >= links) return link == 0 ? NOT_SUPPORTED : INVALID_ARGUMENT;
    *up = link < number_of(script, device->gpu, "nvlinks_up", links);
    return SUCCESS;
}
int nvmlDeviceGetNvLinkErrorCounter(Device *device, unsigned link, unsigned counter, unsigned long long *out) {
    static const char *const keys[] = {"nvlink_replays", "nvlink_recoveries", "nvlink_crc_flits", "nvlink_crc_data"};
    if (counter >= sizeof keys / sizeof *keys) return NOT_SUPPORTED;
    ENTER(device->gpu, keys[counter]);
    if (link >= number_of(script, device->gpu, "nvlinks_up", number_of(script, device->gpu, "nvlinks", 0))) return NOT_SUPPORTED;
    *out = number_of(script, device->gpu, keys[counter], 0);
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(Device *device, unsigned type, unsigned counter, unsigned long long *out) {
    (void)counter;
    const char *key = type == 0 ? "ecc_corrected" : "ecc_uncorrected";
    ENTER(device->gpu, key);
    *out = number_of(script, device->gpu, key, 0);
    return SUCCESS;
}

int nvmlDeviceGetEccMode(Device *device, unsigned *current, unsigned *pending) {
    int code = number_into(device, "ecc_mode", 1, current);
    *pending = *current;
    return code;
}

typedef struct { unsigned id, scope; long long stamp, latency; unsigned type; int code; union { double f64; unsigned u32; unsigned long long u64; } value; } Field;
int nvmlDeviceGetFieldValues(Device *device, int count, Field *fields) {
    static const struct { unsigned id; const char *key; unsigned long long otherwise; } known[] = {
        {82, "memory_temperature", 60}, {142, "remapped_corrected", 0}, {143, "remapped_uncorrected", 0}, {144, "remapped_pending", 0},
        {145, "remapped_failure", 0}, {185, "power", 400000}, {186, "power_instant", 420000},
    };
    ENTER(device->gpu, "fields");
    for (int at = 0; at < count; at++) {
        Field *field = &fields[at];
        field->code = NOT_SUPPORTED;
        for (size_t one = 0; one < sizeof known / sizeof *known; one++)
            if (known[one].id == field->id) {
                unsigned value = 0;
                field->code = number_into(device, known[one].key, known[one].otherwise, &value);
                field->type = 1;
                field->value.u64 = value;
            }
    }
    return SUCCESS;
}

int nvmlDeviceGetPersistenceMode(Device *device, unsigned *out) { return number_into(device, "persistence", 1, out); }
int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *out) { return number_into(device, "power_limit", 700000, out); }
int nvmlDeviceGetPowerManagementLimit(Device *device, unsigned *out) { return number_into(device, "power_limit", 700000, out); }
int nvmlDeviceGetPowerManagementDefaultLimit(Device *device, unsigned *out) { return number_into(device, "power_limit_default", 700000, out); }
int nvmlDeviceGetPowerManagementLimitConstraints(Device *device, unsigned *min, unsigned *max) {
    int code = number_into(device, "power_limit_min", 200000, min);
    return code ? code : number_into(device, "power_limit_max", 700000, max);
}

/* `processes` is `pid:bytes[:gpu instance]`, separated by commas. */
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;
int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *out) {
    ENTER(device->gpu, "processes");
    char all[1024] = "", *rest = all;
    text_of(script, device->gpu, "processes", all, sizeof all);
    unsigned room = *count, seen = 0;
    for (char *part; (part = strsep(&rest, ","));) {
        Process one = {0, 0, 0xffffffffu, 0xffffffffu};
        if (sscanf(part, "%u:%llu:%u", &one.pid, &one.memory, &one.gpu_instance) < 2) continue;
        if (seen < room && out) out[seen] = one;
        seen++;
    }
    *count = seen;
    return seen > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    int code = number_into(device, "mig", 0, current);
    *pending = *current;
    return code;
}
int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *out) { (void)device; *out = MOST_MIG; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **out) {
    ENTER(device->gpu, "mig");
    char part[256];
    if (index >= MOST_MIG || !mig_part(script, device, (int)index, 0, part, sizeof part)) return NOT_FOUND;
    *out = &devices[device->gpu][index + 1];
    return SUCCESS;
}
static int instance_of(Device *device, int field, unsigned *out) {
    ENTER(device->gpu, "mig");
    char part[64];
    if (device->mig < 0 || !mig_part(script, device, device->mig, field, part, sizeof part)) return INVALID_ARGUMENT;
    *out = (unsigned)strtoul(part, NULL, 0);
    return SUCCESS;
}
int nvmlDeviceGetGpuInstanceId(Device *device, unsigned *out) { return instance_of(device, 2, out); }
int nvmlDeviceGetComputeInstanceId(Device *device, unsigned *out) { return instance_of(device, 3, out); }

/* Events: `xid CODE SERIAL` is delivered once each time the line changes. */
typedef struct { unsigned registered; } EventSet;
typedef struct { Device *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;
enum { XID_EVENT = 8 };

int nvmlDeviceGetSupportedEventTypes(Device *device, unsigned long long *out) {
    ENTER(device->gpu, "events");
    *out = number_of(script, device->gpu, "events", XID_EVENT);
    return SUCCESS;
}
int nvmlEventSetCreate(EventSet **out) { ENTER(-1, "events"); *out = calloc(1, sizeof **out); return SUCCESS; }
int nvmlEventSetFree(EventSet *set) { free(set); return SUCCESS; }
int nvmlDeviceRegisterEvents(Device *device, unsigned long long types, EventSet *set) {
    ENTER(device->gpu, "events");
    if (types & ~(unsigned long long)XID_EVENT) return NOT_SUPPORTED;
    set->registered |= 1u << device->gpu;
    return SUCCESS;
}
int nvmlEventSetWait_v2(EventSet *set, Event *out, unsigned timeout_ms) {
    double until = now() + 1e-3 * timeout_ms;
    for (;;) {
        ENTER(-1, "wait");
        for (int gpu = 0; gpu < MOST_GPUS; gpu++) {
            char xid[64];
            if (!(set->registered & 1u << gpu) || !text_of(script, gpu, "xid", xid, sizeof xid)) continue;
            pthread_mutex_lock(&lock);
            int fresh = strcmp(states[gpu].xid, xid) != 0;
            if (fresh) memcpy(states[gpu].xid, xid, sizeof xid);
            pthread_mutex_unlock(&lock);
            if (fresh) {
                *out = (Event){&devices[gpu][0], XID_EVENT, strtoull(xid, NULL, 0), 0xffffffffu, 0xffffffffu};
                return SUCCESS;
            }
        }
        if (now() >= until) return TIMEOUT;
        usleep(10000);
    }
}

/* GPM: shares in percent, per GPU. A sample remembers whose it is. */
typedef struct { unsigned version, supported; } GpmSupport;
typedef struct { int gpu; } GpmSample;
typedef struct { unsigned id; int code; double value; const char *names[3]; } GpmMetric;
typedef struct { unsigned version, count; GpmSample *one, *other; GpmMetric metrics[210]; } GpmMetrics;

int nvmlGpmQueryDeviceSupport(Device *device, GpmSupport *out) {
    ENTER(device->gpu, "gpm");
    out->supported = (unsigned)number_of(script, device->gpu, "gpm", 1);
    return SUCCESS;
}
int nvmlGpmSampleAlloc(GpmSample **out) { *out = calloc(1, sizeof **out); return SUCCESS; }
int nvmlGpmSampleFree(GpmSample *sample) { free(sample); return SUCCESS; }
int nvmlGpmSampleGet(Device *device, GpmSample *sample) { ENTER(device->gpu, "gpm"); sample->gpu = device->gpu; return SUCCESS; }
int nvmlGpmMetricsGet(GpmMetrics *out) {
    ENTER(out->one->gpu, "gpm");
    for (unsigned at = 0; at < out->count; at++) {
        GpmMetric *metric = &out->metrics[at];
        const char *key = metric->id == 10 ? "gpm_dram" : metric->id == 2 ? "gpm_sm" : metric->id == 5 ? "gpm_tensor" : NULL;
        unsigned value = 0;
        metric->code = key ? number_into(&(Device){out->one->gpu, -1}, key, 50, &value) : NOT_SUPPORTED;
        metric->value = value;
    }
    return SUCCESS;
}
