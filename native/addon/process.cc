// Calls about processes, filters and mounts. An error carries code (errno's name), errno, syscall, path and stage.
#include <fcntl.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "module.h"

// The C half of the calls (seccomp/profile.c, runtime/base.c), without its headers: they are C, not C++.
extern "C" {
struct err {  // as in runtime/base.h
  int code;
  char stage[16], call[24], path[256], msg[400];
};
const char *errno_name(int eno);
uint64_t proc_start_ticks(pid_t pid);
int profile_compile(const char *json, size_t len, const char *const *caps, size_t n_caps, const char *arch, int by, void **out,
                    size_t *out_len, struct err *e);
}

namespace {

struct Failure {
  int eno = 0;
  std::string syscall, path, stage, message;
};

Failure Fail(const char *call, const std::string &path, const std::string &what, int eno = errno) {
  return {eno, call, path, "", what + ": " + strerror(eno)};
}

Napi::Value ToError(Napi::Env env, const Failure &f) {
  Napi::Object e = Napi::Error::New(env, f.message).Value();
  e.Set("code", errno_name(f.eno));
  e.Set("errno", f.eno);
  e.Set("syscall", f.syscall);
  e.Set("path", f.path);
  e.Set("stage", f.stage);
  return e;
}

[[noreturn]] void Throw(Napi::Env env, const Failure &f) { throw Napi::Error(env, ToError(env, f)); }

// Work on libuv's threads that ends in a promise.
class Task : public Napi::AsyncWorker {
 public:
  using Body = std::function<bool(Failure &)>;
  using Result = std::function<Napi::Value(Napi::Env)>;
  static Napi::Promise Run(Napi::Env env, Body body, Result result = nullptr) {
    auto *t = new Task(env, std::move(body), std::move(result));
    t->Queue();
    return t->deferred_.Promise();
  }
  void Execute() override { ok_ = body_(failure_); }
  void OnOK() override {
    Napi::HandleScope scope(Env());
    if (ok_) deferred_.Resolve(result_ ? result_(Env()) : Env().Undefined());
    else deferred_.Reject(ToError(Env(), failure_));
  }

 private:
  Task(Napi::Env env, Body b, Result r) : AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), body_(std::move(b)), result_(std::move(r)) {}
  Napi::Promise::Deferred deferred_;
  Body body_;
  Result result_;
  Failure failure_;
  bool ok_ = false;
};

std::string Text(const Napi::Object &o, const char *key) {
  Napi::Value v = o.Get(key);
  return v.IsString() ? v.As<Napi::String>().Utf8Value() : std::string();
}

// The program seen through a read-only mount of its own: what runs from it cannot be written through /proc/PID/exe (see
// runtime/selfexec.c), and the shim need not execute itself again. One descriptor a path, for the life of the daemon; a program that was
// replaced on disk is opened anew. -1: this kernel or user cannot, the program then protects itself.
int ReadOnlyProgram(const std::string &path) {
  struct Entry {
    int fd;
    dev_t dev;
    ino_t ino;
    timespec mtime;
  };
  static std::map<std::string, Entry> programs;
  struct stat st;
  if (stat(path.c_str(), &st) < 0) return -1;
  auto it = programs.find(path);
  if (it != programs.end()) {
    const Entry &e = it->second;
    if (e.dev == st.st_dev && e.ino == st.st_ino && !memcmp(&e.mtime, &st.st_mtim, sizeof e.mtime)) return e.fd;
    close(e.fd);
    programs.erase(it);
  }
  int fd = static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (fd < 0) return -1;
  mount_attr a{};
  a.attr_set = MOUNT_ATTR_RDONLY;
  if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof a) < 0) {
    close(fd);
    return -1;
  }
  programs[path] = {fd, st.st_dev, st.st_ino, st.st_mtim};
  return fd;
}

Napi::Value SpawnShim(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  Napi::Object o = info[0].As<Napi::Object>();
  std::string path = Text(o, "path"), cwd = Text(o, "cwd");
  std::vector<std::string> args{path};
  if (o.Get("args").IsArray()) {
    Napi::Array list = o.Get("args").As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++) args.push_back(Napi::Value(list[i]).ToString().Utf8Value());
  }
  std::vector<char *> argv;
  for (auto &a : args) argv.push_back(a.data());
  argv.push_back(nullptr);
  int log_fd = o.Get("logFd").IsNumber() ? o.Get("logFd").As<Napi::Number>().Int32Value() : -1;
  int status[2];
  if (pipe2(status, O_CLOEXEC | O_NONBLOCK) < 0) Throw(env, Fail("pipe2", path, "cannot make the status pipe of " + path));
  if (status[1] == 3) {  // dup2 onto itself would leave it close-on-exec
    int moved = fcntl(status[1], F_DUPFD_CLOEXEC, 10);
    int keep = errno;
    close(status[1]);
    status[1] = moved;
    if (moved < 0) {
      close(status[0]);
      Throw(env, Fail("fcntl", path, "cannot move the status pipe of " + path, keep));
    }
  }
  int fl = fcntl(status[1], F_GETFL);
  fcntl(status[1], F_SETFL, fl & ~O_NONBLOCK);
  posix_spawn_file_actions_t fa;
  posix_spawnattr_t attr;
  posix_spawn_file_actions_init(&fa);
  posix_spawnattr_init(&attr);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attr, &none);
  posix_spawnattr_setsigdefault(&attr, &all);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  std::string program = path;
  int fd = ReadOnlyProgram(path);
  if (fd >= 0) program = "/proc/self/fd/" + std::to_string(fd);
  int rc = 0;
  if (!cwd.empty()) rc = posix_spawn_file_actions_addchdir_np(&fa, cwd.c_str());
  if (!rc && log_fd >= 0) rc = posix_spawn_file_actions_adddup2(&fa, log_fd, 1);
  if (!rc && log_fd >= 0) rc = posix_spawn_file_actions_adddup2(&fa, log_fd, 2);
  if (!rc && log_fd < 0) rc = posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
  if (!rc && log_fd < 0) rc = posix_spawn_file_actions_adddup2(&fa, 1, 2);
  if (!rc) rc = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
  if (!rc) rc = posix_spawn_file_actions_adddup2(&fa, status[1], 3);
  pid_t pid = -1;
  if (!rc) rc = posix_spawn(&pid, program.c_str(), &fa, &attr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&fa);
  posix_spawnattr_destroy(&attr);
  close(status[1]);
  if (rc) {
    close(status[0]);
    Failure f = Fail("posix_spawn", path, "cannot start " + path, rc);
    f.stage = "spawn";
    Throw(env, f);
  }
  Napi::Object r = Napi::Object::New(env);
  r.Set("pid", pid);
  r.Set("statusFd", status[0]);
  return r;
}

// One thread waits for all processes: an epoll of pidfds. What ends is told to the main thread, which settles the promises.
class Waiter {
 public:
  explicit Waiter(Napi::Env env) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    stop_ = eventfd(0, EFD_CLOEXEC);
    epoll_event ev{};
    ev.events = EPOLLIN;
    ev.data.u64 = 0;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, stop_, &ev);
    tsfn_ = Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo &) {}), "pidfdWait", 0, 1);
    tsfn_.Unref(env);  // a pending wait alone does not keep the program running
    thread_ = std::thread([this] { Loop(); });
  }
  ~Waiter() {
    uint64_t one = 1;
    if (write(stop_, &one, sizeof one) == sizeof one) thread_.join();
    else thread_.detach();
    tsfn_.Release();
    for (auto &[id, e] : entries_) close(e->fd);
    close(epoll_);
    close(stop_);
  }
  Napi::Promise Add(Napi::Env env, int fd) {
    auto e = std::make_unique<Entry>(Entry{fd, Napi::Promise::Deferred::New(env)});
    Napi::Promise p = e->deferred.Promise();
    uint64_t id = ++next_;
    epoll_event ev{};
    ev.events = EPOLLIN | EPOLLONESHOT;
    ev.data.u64 = id;
    entries_[id] = std::move(e);
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &ev) < 0) {
      Failure f = Fail("epoll_ctl", "", "cannot wait for a process");
      entries_[id]->deferred.Reject(ToError(env, f));
      Drop(id);
    }
    return p;
  }

 private:
  struct Entry {
    int fd;
    Napi::Promise::Deferred deferred;
  };
  void Drop(uint64_t id) {
    close(entries_[id]->fd);
    entries_.erase(id);
  }
  void Done(Napi::Env env, uint64_t id) {
    Napi::HandleScope scope(env);
    auto it = entries_.find(id);
    if (it == entries_.end()) return;
    siginfo_t si;
    // A child of this process leaves a zombie until it is asked for; somebody else's is none of our business (ECHILD).
    (void)waitid(static_cast<idtype_t>(3 /* P_PIDFD */), static_cast<id_t>(it->second->fd), &si, WEXITED | WNOHANG);
    it->second->deferred.Resolve(env.Undefined());
    Drop(id);
  }
  void Loop() {
    for (;;) {
      epoll_event ev[64];
      int n = epoll_wait(epoll_, ev, 64, -1);
      if (n < 0 && errno != EINTR) return;
      for (int i = 0; i < n; i++) {
        uint64_t id = ev[i].data.u64;
        if (id == 0) return;
        tsfn_.BlockingCall([this, id](Napi::Env env, Napi::Function) { Done(env, id); });
      }
    }
  }
  int epoll_, stop_;
  uint64_t next_ = 0;
  std::map<uint64_t, std::unique_ptr<Entry>> entries_;  // main thread only
  Napi::ThreadSafeFunction tsfn_;
  std::thread thread_;
};

Waiter *waiter = nullptr;

Napi::Value PidfdWait(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  auto pid = static_cast<pid_t>(info[0].As<Napi::Number>().Int32Value());
  uint64_t ticks = info[1].IsNumber() ? static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value()) : 0;
  Napi::Promise::Deferred now = Napi::Promise::Deferred::New(env);
  int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) {
    if (errno == ESRCH) now.Resolve(env.Undefined());
    else now.Reject(ToError(env, Fail("pidfd_open", std::to_string(pid), "cannot wait for process " + std::to_string(pid))));
    return now.Promise();
  }
  // The number may have gone to another process meanwhile: its start time tells. 0 ticks: do not ask.
  if (ticks && proc_start_ticks(pid) != ticks) {
    close(fd);
    now.Resolve(env.Undefined());
    return now.Promise();
  }
  if (!waiter) {
    waiter = new Waiter(env);
    env.AddCleanupHook([] {
      delete waiter;
      waiter = nullptr;
    });
  }
  return waiter->Add(env, fd);
}

Napi::Value SeccompCompile(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  auto profile = std::make_shared<std::string>(info[0].As<Napi::String>().Utf8Value());
  auto caps = std::make_shared<std::vector<std::string>>();
  if (info[1].IsArray()) {
    Napi::Array list = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++) caps->push_back(Napi::Value(list[i]).ToString().Utf8Value());
  }
  std::string arch = info[2].IsString() ? info[2].As<Napi::String>().Utf8Value() : "";
  auto out = std::make_shared<std::string>();
  return Task::Run(
      env,
      [=](Failure &f) {
        std::vector<const char *> names;
        for (auto &c : *caps) names.push_back(c.c_str());
        err e{};
        void *bytes = nullptr;
        size_t len = 0;
        // err_stage of the C code is one variable for the process: only this call uses it here, and one at a time.
        static std::mutex one;
        std::lock_guard<std::mutex> lock(one);
        if (profile_compile(profile->data(), profile->size(), names.data(), names.size(), arch.empty() ? nullptr : arch.c_str(), 1 /* PROFILE_FASTEST */, &bytes, &len, &e) == 0) {
          out->assign(static_cast<char *>(bytes), len);
          free(bytes);
          return true;
        }
        f = {e.code, e.call, e.path, e.stage, e.msg};
        return false;
      },
      [=](Napi::Env env) -> Napi::Value {
        Napi::Uint8Array a = Napi::Uint8Array::New(env, out->size());
        memcpy(a.Data(), out->data(), out->size());
        return a;
      });
}

Napi::Value Mount(const Napi::CallbackInfo &info) {
  Napi::Object o = info[0].As<Napi::Object>();
  std::string source = Text(o, "source"), target = Text(o, "target"), type = Text(o, "type"), data = Text(o, "data");
  auto flags = o.Get("flags").IsNumber() ? static_cast<unsigned long>(o.Get("flags").As<Napi::Number>().Int64Value()) : 0UL;
  return Task::Run(info.Env(), [=](Failure &f) {
    if (mount(source.empty() ? nullptr : source.c_str(), target.c_str(), type.empty() ? nullptr : type.c_str(), flags,
              data.empty() ? nullptr : data.c_str()) == 0)
      return true;
    f = Fail("mount", target, "cannot mount " + (source.empty() ? type : source) + " on " + target);
    f.stage = "mount";
    return false;
  });
}

Napi::Value Umount(const Napi::CallbackInfo &info) {
  std::string target = info[0].As<Napi::String>().Utf8Value();
  int flags = info[1].IsNumber() ? info[1].As<Napi::Number>().Int32Value() : 0;
  return Task::Run(info.Env(), [=](Failure &f) {
    if (umount2(target.c_str(), flags) == 0) return true;
    f = Fail("umount2", target, "cannot unmount " + target);
    f.stage = "mount";
    return false;
  });
}

Napi::Value UnreadBytes(const Napi::CallbackInfo &info) {
  int n = 0;
  if (ioctl(info[0].As<Napi::Number>().Int32Value(), TIOCOUTQ, &n) < 0)  // SIOCOUTQ is another name for it
    Throw(info.Env(), Fail("ioctl", "", "cannot ask a socket for its unread bytes"));
  return Napi::Number::New(info.Env(), n);
}

}  // namespace

void RegisterProcess(Napi::Env env, Napi::Object exports) {
  exports.Set("spawnShim", Napi::Function::New(env, SpawnShim, "spawnShim"));
  exports.Set("pidfdWait", Napi::Function::New(env, PidfdWait, "pidfdWait"));
  exports.Set("seccompCompile", Napi::Function::New(env, SeccompCompile, "seccompCompile"));
  exports.Set("unreadBytes", Napi::Function::New(env, UnreadBytes, "unreadBytes"));
  exports.Set("mount", Napi::Function::New(env, Mount, "mount"));
  exports.Set("umount", Napi::Function::New(env, Umount, "umount"));
}
