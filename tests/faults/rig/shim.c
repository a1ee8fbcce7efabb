/* Faults of the disk, of the clock, and deaths between two instructions, inside a real gateway.

   Loaded with LD_PRELOAD. What it does is told while the process runs, by numbers in a file that both sides
   have mapped (see shim.py, which has the same fields). It touches usage journals only, and the wall clock. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { NOTHING, DIE_BEFORE, DIE_TORN, DIE_AFTER, STOP_AFTER };

struct control {
    volatile int32_t sync_errno;     /* what forcing a journal to the disk answers; 0: works */
    volatile int32_t room_errno;     /* what writing and reserving answer; 0: work */
    volatile int32_t clock_offset_s; /* how wrong the wall clock is */
    volatile int32_t append_action;  /* what happens at an append */
    volatile int32_t append_number;  /* at which, counted down */
    volatile int32_t appends;        /* how many there were */
};

static struct control none;
static struct control *control = &none;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("PENSTOCK_FAULT_CONTROL");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        control = mapped;
    close(file);
}

/* Whether a file lies in the journal's folder; `part`: and is one of the journal, not of the progress notes. */
static int is_journal(int file, int part) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, "/journal/") != NULL && (!part || strstr(path, ".journal") != NULL);
}

static int synced(int file, long number) {
    if (control->sync_errno && is_journal(file, 0)) {
        errno = control->sync_errno;
        return -1;
    }
    return (int)syscall(number, file);
}

int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

static ssize_t written(int file, const void *data, size_t size, off_t offset) {
    if (control->room_errno && is_journal(file, 0)) {
        errno = control->room_errno;
        return -1;
    }
    if (!is_journal(file, 1))
        return syscall(SYS_pwrite64, file, data, size, offset);
    /* The part's header, at 0, is no append. */
    int due = offset > 0 && control->append_action && __sync_sub_and_fetch(&control->append_number, 1) == 0;
    int action = due ? control->append_action : NOTHING;
    if (action == DIE_BEFORE)
        kill(getpid(), SIGKILL);
    ssize_t done = syscall(SYS_pwrite64, file, data, action == DIE_TORN ? size / 2 : size, offset);
    if (offset > 0)
        __sync_add_and_fetch(&control->appends, 1);
    if (action == DIE_TORN || action == DIE_AFTER)
        kill(getpid(), SIGKILL);
    if (action == STOP_AFTER)
        kill(getpid(), SIGSTOP);
    return done;
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return written(file, data, size, offset); }
ssize_t pwrite64(int file, const void *data, size_t size, off_t offset) { return written(file, data, size, offset); }

static int reserved(int file, off_t offset, off_t length) {
    if (control->room_errno && is_journal(file, 0))
        return control->room_errno;
    return syscall(SYS_fallocate, file, 0, offset, length) == 0 ? 0 : errno;
}

int posix_fallocate(int file, off_t offset, off_t length) { return reserved(file, offset, length); }
int posix_fallocate64(int file, off_t offset, off_t length) { return reserved(file, offset, length); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->clock_offset_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = (int)syscall(SYS_gettimeofday, now, zone);
    if (result == 0)
        now->tv_sec += control->clock_offset_s;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
