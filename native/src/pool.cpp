#include "pool.hpp"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "arithmetic.hpp"

namespace understudy {

namespace {

struct Job {
  const std::function<void(int)>& work;
  int items;
  std::atomic<int> next{0};
  std::mutex failing{};
  std::exception_ptr failure{};

  void help() {
    const StandardArithmetic standard;
    for (int item; (item = next.fetch_add(1)) < items;) {
      try {
        work(item);
      } catch (...) {
        const std::lock_guard lock(failing);
        failure = std::current_exception();
      }
    }
  }
};

}  // namespace

struct Pool::Shared {
  std::mutex calling;  // held by the call that has the threads
  std::mutex changing;
  std::condition_variable changed;
  Job* job = nullptr;
  unsigned number = 0;  // of the job: a thread helps with each once
  int inside = 0;  // threads that hold on to the job
  bool over = false;

  void serve() {
    std::unique_lock lock(changing);
    for (unsigned seen = 0;;) {
      changed.wait(lock, [&] { return over || (job && number != seen); });
      if (over) return;
      seen = number;
      Job* mine = job;
      inside++;
      lock.unlock();
      mine->help();
      lock.lock();
      if (--inside == 0) changed.notify_all();
    }
  }
};

Pool::Pool(int threads) : threads_(threads), process_(getpid()), shared_(std::make_shared<Shared>()) {
  try {
    for (int helper = 1; helper < threads; helper++) std::thread([shared = shared_] { shared->serve(); }).detach();
  } catch (...) {  // no more threads to be had: those that started must not wait for ever
    dismiss();
    throw;
  }
}

Pool::~Pool() { dismiss(); }

void Pool::dismiss() {
  if (getpid() != process_) return;
  const std::lock_guard lock(shared_->changing);
  shared_->over = true;
  shared_->changed.notify_all();
}

void Pool::run(int items, const std::function<void(int)>& work) {
  Job job{work, items};
  std::unique_lock mine(shared_->calling, std::defer_lock);
  const bool shared = threads_ > 1 && items > 1 && getpid() == process_ && mine.try_lock();
  if (shared) {
    const std::lock_guard lock(shared_->changing);
    shared_->job = &job;
    shared_->number++;
    shared_->changed.notify_all();
  }
  job.help();
  if (shared) {
    std::unique_lock lock(shared_->changing);
    shared_->job = nullptr;
    shared_->changed.wait(lock, [&] { return shared_->inside == 0; });
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace understudy
