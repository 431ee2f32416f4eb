#include "net_thread.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace {

constexpr unsigned kMaxThreads = 8;

struct Job {
  Napi::Promise::Deferred deferred;
  std::function<void()> work;
  std::function<Napi::Value(Napi::Env)> value;
  std::optional<NetError> error;
  napi_threadsafe_function settle = nullptr;
};

// Never destroyed: detached threads may still wait on it while the process exits.
struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Job*> queue;
  unsigned threads = 0;
  unsigned idle = 0;
};
Pool& ThePool() {
  static Pool* pool = new Pool;
  return *pool;
}

void Settle(napi_env raw, napi_value, void*, void* data) {
  std::unique_ptr<Job> job(static_cast<Job*>(data));
  if (raw == nullptr) return;  // the environment is going away
  Napi::Env env(raw);
  Napi::HandleScope scope(env);
  if (!job->error) {
    job->deferred.Resolve(job->value(env));
    return;
  }
  const NetError& e = *job->error;
  std::string message = e.syscall + " failed at " + e.stage;
  if (!e.path.empty()) message += " (" + e.path + ")";
  message += std::string(": ") + strerror(e.err);
  if (!e.detail.empty()) message += ": " + e.detail;
  Napi::Error error = Napi::Error::New(env, message);
  const char* name = strerrorname_np(e.err);
  error.Set("code", Napi::String::New(env, name ? name : "UNKNOWN"));
  error.Set("errno", Napi::Number::New(env, e.err));
  error.Set("syscall", Napi::String::New(env, e.syscall));
  error.Set("path", Napi::String::New(env, e.path));
  error.Set("stage", Napi::String::New(env, e.stage));
  job->deferred.Reject(error.Value());
}

void Worker() {
  Pool& pool = ThePool();
  int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  for (;;) {
    Job* job;
    {
      std::unique_lock lock(pool.mutex);
      pool.idle++;
      pool.wake.wait(lock, [&] { return !pool.queue.empty(); });
      pool.idle--;
      job = pool.queue.front();
      pool.queue.pop_front();
    }
    try {
      job->work();
    } catch (const NetError& e) {
      job->error = e;
    } catch (const std::exception& e) {
      job->error = NetError{EIO, "addon", "", "work", e.what()};
    }
    bool back = home >= 0 && setns(home, CLONE_NEWNET) == 0;
    napi_threadsafe_function settle = job->settle;
    napi_call_threadsafe_function(settle, job, napi_tsfn_blocking);
    napi_release_threadsafe_function(settle, napi_tsfn_release);
    if (!back) break;
  }
  if (home >= 0) close(home);
  std::unique_lock lock(pool.mutex);
  pool.threads--;
}

}  // namespace

void Fail(int err, const char* syscall, const std::string& path, const std::string& stage, const std::string& detail) {
  throw NetError{err, syscall, path, stage, detail};
}

Fd::~Fd() {
  if (fd_ >= 0) close(fd_);
}

Napi::Value RunOnThread(Napi::Env env, std::function<void()> work, std::function<Napi::Value(Napi::Env)> value) {
  auto* job = new Job{Napi::Promise::Deferred::New(env), std::move(work), std::move(value), {}, nullptr};
  Napi::Value promise = job->deferred.Promise();
  napi_status status =
      napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "shoal.net"), 0, 1, nullptr,
                                      nullptr, nullptr, Settle, &job->settle);
  if (status != napi_ok) {
    delete job;
    throw Napi::Error::New(env, "cannot make a thread-safe function for a network job");
  }
  Pool& pool = ThePool();
  std::unique_lock lock(pool.mutex);
  pool.queue.push_back(job);
  if (pool.idle < pool.queue.size() && pool.threads < kMaxThreads) {
    pool.threads++;
    std::thread(Worker).detach();
  }
  pool.wake.notify_one();
  return promise;
}

void EnterNetns(const std::string& path) {
  if (path.empty()) return;
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) Fail(errno, "open", path, "namespace");
  if (setns(fd.get(), CLONE_NEWNET) < 0) Fail(errno, "setns", path, "namespace");
}

Bag Bag::From(const Napi::Object& object) {
  Bag bag;
  Napi::Array keys = object.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); i++) {
    std::string key = keys.Get(i).ToString();
    Napi::Value v = object.Get(key);
    if (v.IsString())
      bag.strings[key] = v.As<Napi::String>();
    else if (v.IsNumber())
      bag.numbers[key] = v.As<Napi::Number>().DoubleValue();
    else if (v.IsBoolean())
      bag.flags[key] = v.As<Napi::Boolean>().Value();
    else if (v.IsArray()) {
      Napi::Array a = v.As<Napi::Array>();
      for (uint32_t k = 0; k < a.Length(); k++) bag.lists[key].push_back(a.Get(k).ToString());
    }
  }
  return bag;
}

bool Bag::has(const char* key) const { return strings.count(key) || numbers.count(key) || flags.count(key); }
std::string Bag::str(const char* key) const {
  auto it = strings.find(key);
  return it == strings.end() ? "" : it->second;
}
long Bag::num(const char* key, long absent) const {
  auto it = numbers.find(key);
  return it == numbers.end() ? absent : static_cast<long>(it->second);
}
bool Bag::flag(const char* key, bool absent) const {
  auto it = flags.find(key);
  return it == flags.end() ? absent : it->second;
}

std::string StringOr(const Napi::Value& value) {
  return value.IsString() ? std::string(value.As<Napi::String>()) : std::string();
}
