/* A stand-in for NVIDIA's management library (libnvidia-ml.so.1), for machines with no GPU.
 *
 * At each call it reads the text file that TANDEM_STANDIN_NVML names; sizes are bytes:
 *   gpu INDEX UUID "NAME" TOTAL RESERVED USED
 *   process INDEX PID USED        USED may be "-": the driver does not say, as under WSL2
 *   graphics INDEX PID USED       the same for a process that draws
 *   fail FUNCTION CODE            that function answers with this error
 * Without the variable or the file there is no driver (NVML_ERROR_DRIVER_NOT_LOADED). As in the library itself, version 2
 * of the memory tells what is reserved apart from what is used and version 1 adds them up, a struct of another version is
 * refused, and a list that does not fit its array is refused with the count that would.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9,
    ARGUMENT_VERSION_MISMATCH = 25, MOST = 64
};

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_v3;
typedef struct { int index; char uuid[96], name[96]; unsigned long long total, reserved, used; } gpu;

static int initialised = 0;

/* Hands each line to `take` until it answers other than 0. Gives -1 when there is no file. */
static int lines(int (*take)(const char *, void *), void *held) {
    const char *path = getenv("TANDEM_STANDIN_NVML");
    FILE *file = path ? fopen(path, "re") : NULL;
    char line[512];
    int got = 0;
    if (!file) return -1;
    while (!got && fgets(line, sizeof line, file)) got = take(line, held);
    fclose(file);
    return got;
}

typedef struct { const char *function; int code; } failure;

static int take_failure(const char *line, void *held) {
    failure *wanted = held;
    char name[96];
    int code;
    if (sscanf(line, "fail %95s %d", name, &code) != 2 || strcmp(name, wanted->function)) return 0;
    wanted->code = code;
    return 1;
}

/* What a function has to answer before it looks at anything: SUCCESS, or an error. */
static int ready(const char *function) {
    failure wanted = {function, SUCCESS};
    if (lines(take_failure, &wanted) < 0) return DRIVER_NOT_LOADED;
    if (wanted.code) return wanted.code;
    return initialised || !strcmp(function, "nvmlInit_v2") ? SUCCESS : UNINITIALIZED;
}

static int take_gpu(const char *line, void *held) {
    gpu *wanted = held, found;
    if (sscanf(line, "gpu %d %95s \"%95[^\"]\" %llu %llu %llu", &found.index, found.uuid, found.name, &found.total,
               &found.reserved, &found.used) != 6 || found.index != wanted->index) return 0;
    *wanted = found;
    return 1;
}

static int take_count(const char *line, void *held) {
    if (!strncmp(line, "gpu ", 4)) ++*(unsigned int *)held;
    return 0;
}

/* A handle is the index and one more, as NULL is no handle. */
static int look(void *device, gpu *found) {
    found->index = (int)(intptr_t)device - 1;
    return lines(take_gpu, found) == 1 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlInit_v2(void) {
    int code = ready("nvmlInit_v2");
    initialised = code == SUCCESS;
    return code;
}

int nvmlShutdown(void) {
    if (!initialised) return UNINITIALIZED;
    initialised = 0;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case 3: return "Not Supported";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    case ARGUMENT_VERSION_MISMATCH: return "Argument Version Mismatch";
    default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    int code = ready("nvmlDeviceGetCount_v2");
    if (code) return code;
    *count = 0;
    lines(take_count, count);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    gpu found;
    int code = ready("nvmlDeviceGetHandleByIndex_v2");
    if (code) return code;
    *device = (void *)(intptr_t)(index + 1);
    return look(*device, &found);
}

static int text(const char *function, void *device, char *held, unsigned int room, int is_uuid) {
    gpu found;
    const char *value = is_uuid ? found.uuid : found.name;
    int code = ready(function);
    if (code || (code = look(device, &found))) return code;
    if (strlen(value) >= room) return INSUFFICIENT_SIZE;
    strcpy(held, value);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *held, unsigned int room) {
    return text("nvmlDeviceGetUUID", device, held, room, 1);
}

int nvmlDeviceGetName(void *device, char *held, unsigned int room) {
    return text("nvmlDeviceGetName", device, held, room, 0);
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *held) {
    gpu found;
    int code = ready("nvmlDeviceGetMemoryInfo_v2");
    if (code || (code = look(device, &found))) return code;
    if (held->version != (sizeof(memory_v2) | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
    held->total = found.total;
    held->reserved = found.reserved;
    held->used = found.used;
    held->free = found.total - found.reserved - found.used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_v1 *held) {
    gpu found;
    int code = ready("nvmlDeviceGetMemoryInfo");
    if (code || (code = look(device, &found))) return code;
    held->total = found.total;
    held->used = found.reserved + found.used;
    held->free = found.total - held->used;
    return SUCCESS;
}

typedef struct { const char *form; int index; unsigned int count; process_v3 found[MOST]; } list;

static int take_process(const char *line, void *held) {
    list *wanted = held;
    int index;
    unsigned int pid;
    char used[32];
    if (sscanf(line, wanted->form, &index, &pid, used) != 3 || index != wanted->index || wanted->count == MOST) return 0;
    process_v3 one = {pid, strcmp(used, "-") ? strtoull(used, NULL, 10) : ~0ull, ~0u, ~0u};
    wanted->found[wanted->count++] = one;
    return 0;
}

static int processes(const char *function, const char *form, void *device, unsigned int *count, process_v3 *held) {
    list wanted = {form, (int)(intptr_t)device - 1, 0, {{0}}};
    unsigned int room = *count;
    int code = ready(function);
    if (code) return code;
    lines(take_process, &wanted);
    *count = wanted.count;
    if (wanted.count > room) return INSUFFICIENT_SIZE;
    if (wanted.count && !held) return INVALID_ARGUMENT;
    if (wanted.count) memcpy(held, wanted.found, wanted.count * sizeof *held);
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, process_v3 *held) {
    return processes("nvmlDeviceGetComputeRunningProcesses_v3", "process %d %u %31s", device, count, held);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned int *count, process_v3 *held) {
    return processes("nvmlDeviceGetGraphicsRunningProcesses_v3", "graphics %d %u %31s", device, count, held);
}
