/* A wall clock that jumps, for LD_PRELOAD: what a process reads of the time of day, in Python, C, C++ and Rust alike.
   The monotonic clock and the times of files stay those of the system. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static _Atomic long long offsets[2];
static _Atomic unsigned each = 1, calls;

/* The clock is off by `first` seconds for so many calls, then by `second` seconds for as many, and so on. */
void set_clock(long long first, long long second, unsigned calls_each) {
    each = calls_each;
    offsets[0] = first;
    offsets[1] = second;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offsets[atomic_fetch_add(&calls, 1) / each % 2];
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec time;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (place)
        *place = time.tv_sec;
    return time.tv_sec;
}
