// Worker threads of the addon's own, on which everything that enters another network namespace runs.
//
// setns(2) is per thread: neither Node's main thread nor libuv's pool may ever call it. A job runs on one of a few
// threads started here, which goes back to the daemon's namespace after each job; a thread that cannot go back ends.
#pragma once
#include <napi.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

// What JavaScript sees as Error { code, errno, syscall, path, stage, message }.
struct NetError {
  int err;
  std::string syscall;
  std::string path;   // file, namespace or link the call was about
  std::string stage;  // which step of the request
  std::string detail;
};

[[noreturn]] void Fail(int err, const char* syscall, const std::string& path, const std::string& stage,
                       const std::string& detail = "");

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  Fd(Fd&& o) noexcept : fd_(o.release()) {}
  ~Fd();
  int get() const { return fd_; }
  int release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};

// Runs `work` on a worker thread, then `value` on the main thread with its result; work reports failure by Fail().
Napi::Value RunOnThread(Napi::Env env, std::function<void()> work, std::function<Napi::Value(Napi::Env)> value);

// Puts the calling worker thread into the namespace bound at `path`; "" stays in the daemon's own.
void EnterNetns(const std::string& path);

// A plain copy of a flat JavaScript object, readable off the main thread. null and undefined are absent.
struct Bag {
  std::map<std::string, std::string> strings;
  std::map<std::string, double> numbers;
  std::map<std::string, bool> flags;
  std::map<std::string, std::vector<std::string>> lists;

  static Bag From(const Napi::Object& object);
  bool has(const char* key) const;
  std::string str(const char* key) const;  // "" when absent
  long num(const char* key, long absent = 0) const;
  bool flag(const char* key, bool absent = false) const;
};

std::string StringOr(const Napi::Value& value);  // "" for null and undefined
