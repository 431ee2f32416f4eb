// Starts the relay of published ports (native/relay). It ends when the descriptor that is handed back is closed, however that
// comes about: the daemon's end is one way.
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <signal.h>
#include <unistd.h>

#include <memory>

#include "net_internal.h"
#include "net_thread.h"

namespace {

struct Relay {
  pid_t pid;
  int leash;
};

Relay Start(const std::string& program, std::vector<std::string> args, const std::vector<Fd>& descriptors) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) Fail(errno, "pipe2", program, "relay");
  Fd in(ends[0]), leash(ends[1]);
  for (const Fd& fd : descriptors)
    if (fd.get() < 0) Fail(EBADF, "fcntl", program, "relay");
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (std::string& a : args) argv.push_back(a.data());
  argv.push_back(nullptr);
  char* none[] = {nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  sigset_t empty, all;
  sigemptyset(&empty);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &empty);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  int rc = posix_spawn_file_actions_adddup2(&actions, in.get(), 0);
  if (!rc) rc = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  for (size_t i = 0; !rc && i < descriptors.size(); i++)
    rc = posix_spawn_file_actions_adddup2(&actions, descriptors[i].get(), 3 + static_cast<int>(i));
  pid_t pid = -1;
  if (!rc) rc = posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), none);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (rc) Fail(rc, "posix_spawn", program, "relay");
  return {pid, leash.release()};
}

}  // namespace

// netRelay(program, arguments, descriptors) -> {pid, leash}; the descriptors become 3, 4, ... there. The caller owns the leash.
Napi::Value NetRelay(const Napi::CallbackInfo& info) {
  std::string program = info[0].ToString();
  std::vector<std::string> args;
  auto descriptors = std::make_shared<std::vector<Fd>>();
  Napi::Array list = info[1].As<Napi::Array>(), fds = info[2].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) args.push_back(list.Get(i).ToString());
  // Copied here and now: JavaScript may close its own before a thread comes to it. Away from the numbers that they are to have.
  for (uint32_t i = 0; i < fds.Length(); i++)
    descriptors->emplace_back(fcntl(fds.Get(i).ToNumber(), F_DUPFD_CLOEXEC, 3 + static_cast<int>(fds.Length())));
  auto relay = std::make_shared<Relay>();
  return RunOnThread(
      info.Env(), [=] { *relay = Start(program, args, *descriptors); },
      [relay](Napi::Env env) {
        Napi::Object o = Napi::Object::New(env);
        o.Set("pid", relay->pid);
        o.Set("leash", relay->leash);
        return o;
      });
}
