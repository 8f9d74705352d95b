// See workers.hpp.

#include "workers.hpp"

#include <system_error>

#include <sched.h>
#include <unistd.h>

#include "breath.hpp"
#include "denormals.hpp"

namespace wavewn {

#if defined(__APPLE__)
Bell::Bell() : bell_(dispatch_semaphore_create(0)) {}
Bell::~Bell() { dispatch_release(bell_); }
void Bell::wait() noexcept { dispatch_semaphore_wait(bell_, DISPATCH_TIME_FOREVER); }
void Bell::post() noexcept { dispatch_semaphore_signal(bell_); }
#else
Bell::Bell() { sem_init(&bell_, 0, 0); }
Bell::~Bell() { sem_destroy(&bell_); }
void Bell::wait() noexcept {
    while (sem_wait(&bell_) != 0) {
    }
}
void Bell::post() noexcept { sem_post(&bell_); }
#endif

Workers::Workers(int threads) : threads_(threads) { start(); }

Workers::~Workers() {
    if (!ours()) return;  // the threads stayed behind in another process
    ended_.store(true);
    for (Worker* worker : workers_) {
        worker->bell.post();
        pthread_join(worker->thread, nullptr);
        delete worker;
    }
}

void Workers::start() {
    process_ = getpid();
    for (int i = 1; i < threads_; ++i) {
        auto* const worker = new Worker;
        worker->owner = this;
        if (const int error = pthread_create(&worker->thread, nullptr, live, worker)) {
            delete worker;
            throw std::system_error(error, std::generic_category(), "a thread of the engine");
        }
        workers_.push_back(worker);
    }
}

bool Workers::ours() const noexcept { return process_ == getpid(); }

void Workers::restart() {
    workers_.clear();  // not deleted: their threads are not here, and a bell may be torn
    call_.store(0);
    busy_.store(0);
    start();
}

void Workers::help() noexcept {
    for (int i; (i = next_.fetch_add(1)) < jobs_;) job_(context_, i);
}

void Workers::run(int jobs, Job job, void* context) noexcept {
    job_ = job;
    context_ = context;
    jobs_ = jobs;
    next_.store(0);
    busy_.store(static_cast<int>(workers_.size()));
    call_.fetch_add(1);
    for (Worker* worker : workers_)
        if (worker->asleep.load()) worker->bell.post();
    help();
    for (int i = 0; busy_.load() != 0; ++i)
        if (i < PATIENCE)
            breathe();
        else
            sched_yield();
}

void* Workers::live(void* argument) {
    auto& worker = *static_cast<Worker*>(argument);
    Workers& owner = *worker.owner;
    const FlushDenormals flush;
    std::uint64_t seen = 0;
    for (;;) {
        for (int i = 0; i < PATIENCE && owner.call_.load() == seen && !owner.ended_.load(); ++i)
            breathe();
        if (owner.call_.load() == seen && !owner.ended_.load()) {
            worker.asleep.store(true);
            // Whoever calls now sees `asleep` or is seen here.
            while (owner.call_.load() == seen && !owner.ended_.load()) worker.bell.wait();
            worker.asleep.store(false);
        }
        if (owner.ended_.load()) return nullptr;
        seen = owner.call_.load();
        owner.help();
        owner.busy_.fetch_sub(1);
    }
}

}  // namespace wavewn
