// A few threads that share out numbered pieces of work with whoever calls. Which thread does what changes no result.
#pragma once

#include <functional>
#include <memory>

namespace understudy {

class Pool {
 public:
  explicit Pool(int threads);  // together with the caller's
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Calls work(0) … work(items - 1), each once, and returns when all are done; rethrows what one of them threw. Where the
  // pool is busy with another call, the caller does everything alone; so does a process that was forked off, which has
  // no threads, and locks that nobody will ever open.
  void run(int items, const std::function<void(int)>& work);

  int threads() const { return threads_; }

 private:
  struct Shared;
  void dismiss();  // the threads go when they are done

  int threads_;
  int process_;  // that made it
  std::shared_ptr<Shared> shared_;  // the threads keep it, so that nobody has to wait for them
};

}  // namespace understudy
