// Threads that wait for work of one call and share its jobs.
//
// A worker that has nothing to do looks for work for some microseconds and then sleeps, so that calls
// that follow each other find it awake and an idle program costs nothing. A call takes no lock: jobs
// are handed out by one atomic counter. After a fork the child has none of its parent's threads;
// the first call there starts its own.

#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include <pthread.h>
#include <sys/types.h>
#if defined(__APPLE__)
#include <dispatch/dispatch.h>
#else
#include <semaphore.h>
#endif

namespace wavewn {

// Sleep until another thread posts.
class Bell {
   public:
    Bell();
    ~Bell();
    Bell(const Bell&) = delete;
    Bell& operator=(const Bell&) = delete;
    void wait() noexcept;
    void post() noexcept;

   private:
#if defined(__APPLE__)
    dispatch_semaphore_t bell_;
#else
    sem_t bell_;
#endif
};

class Workers {
   public:
    using Job = void (*)(void* context, int index);

    // Start `threads` - 1 of them; the caller of `run` is one, too.
    explicit Workers(int threads);
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    // Do job(context, 0 .. jobs - 1), each once, on all threads; return when all are done. One call
    // at a time. At least min(jobs, threads) of them run at once, so jobs may wait for each other if
    // they are no more than threads.
    void run(int jobs, Job job, void* context) noexcept;

    // Whether the threads are those of this process; if not, `restart` before `run`.
    bool ours() const noexcept;
    void restart();

    int threads() const { return threads_; }

   private:
    struct Worker {
        Workers* owner = nullptr;
        pthread_t thread{};
        Bell bell;
        std::atomic<bool> asleep{false};
    };

    static void* live(void* worker);
    void start();
    void help() noexcept;

    const int threads_;
    pid_t process_ = 0;
    Job job_ = nullptr;
    void* context_ = nullptr;
    int jobs_ = 0;
    std::atomic<std::uint64_t> call_{0};  // number of the call at hand
    std::atomic<int> next_{0};
    std::atomic<int> busy_{0};  // workers that have not seen the end of the call
    std::atomic<bool> ended_{false};
    std::vector<Worker*> workers_;
};

}  // namespace wavewn
