/* Counts allocations and locks of a process: LD_PRELOAD it, then ask `counted`.
 *
 * Every allocation of C and C++ ends in one of these functions, operator new included. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static long allocations, locks;
static int (*lock)(pthread_mutex_t *);

static void count(long *which) { __atomic_add_fetch(which, 1, __ATOMIC_RELAXED); }

long counted_allocations(void) { return __atomic_load_n(&allocations, __ATOMIC_RELAXED); }
long counted_locks(void) { return __atomic_load_n(&locks, __ATOMIC_RELAXED); }

void *malloc(size_t size) { return count(&allocations), __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return count(&allocations), __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { return count(&allocations), __libc_realloc(old, size); }
void *memalign(size_t to, size_t size) { return count(&allocations), __libc_memalign(to, size); }
void *aligned_alloc(size_t to, size_t size) { return memalign(to, size); }
int posix_memalign(void **found, size_t to, size_t size) {
    return (*found = memalign(to, size)) ? 0 : ENOMEM;
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (!lock) lock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    return count(&locks), lock(mutex);
}
