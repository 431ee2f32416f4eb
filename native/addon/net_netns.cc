// Network namespaces bound to files, sysctls and sockets inside them.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "net_internal.h"
#include "net_thread.h"

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

Pairs PairsFrom(const Napi::Value& value) {
  Pairs out;
  if (!value.IsObject()) return out;
  Napi::Object o = value.As<Napi::Object>();
  Napi::Array keys = o.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); i++) {
    std::string key = keys.Get(i).ToString();
    out.emplace_back(key, o.Get(key).ToString());
  }
  return out;
}

// Dots separate, as with sysctl(8); a slash inside a name stands for a dot there (interface "eth0/5" is eth0.5).
std::string SysctlPath(const std::string& key) {
  std::string path = "/proc/sys/";
  for (char c : key) path += c == '.' ? '/' : c == '/' ? '.' : c;
  return path;
}

void WriteSysctls(const Pairs& pairs) {
  for (const auto& [key, value] : pairs) {
    std::string path = SysctlPath(key);
    Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (fd.get() < 0) Fail(errno, "open", path, "sysctl " + key);
    if (write(fd.get(), value.data(), value.size()) < 0) Fail(errno, "write", path, "sysctl " + key, value);
  }
}

void LoopbackUp() {
  Fd s(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (s.get() < 0) Fail(errno, "socket", "lo", "loopback");
  struct ifreq r = {};
  strcpy(r.ifr_name, "lo");
  if (ioctl(s.get(), SIOCGIFFLAGS, &r) < 0) Fail(errno, "ioctl SIOCGIFFLAGS", "lo", "loopback");
  r.ifr_flags |= IFF_UP;
  if (ioctl(s.get(), SIOCSIFFLAGS, &r) < 0) Fail(errno, "ioctl SIOCSIFFLAGS", "lo", "loopback");
}

}  // namespace

// netnsCreate(path, sysctls): a new namespace with lo up, bound to a new file at `path`.
Napi::Value NetnsCreate(const Napi::CallbackInfo& info) {
  std::string path = info[0].ToString();
  Pairs sysctls = PairsFrom(info[1]);
  return RunOnThread(
      info.Env(),
      [path, sysctls] {
        Fd file(open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
        if (file.get() < 0) Fail(errno, "open", path, "file");
        try {
          if (unshare(CLONE_NEWNET) < 0) Fail(errno, "unshare", path, "namespace");
          LoopbackUp();
          WriteSysctls(sysctls);
          if (mount("/proc/thread-self/ns/net", path.c_str(), nullptr, MS_BIND, nullptr) < 0)
            Fail(errno, "mount", path, "bind");
        } catch (...) {
          unlink(path.c_str());
          throw;
        }
      },
      [](Napi::Env env) { return env.Undefined(); });
}

// netnsDelete(path): unbinds and removes the file; the namespace goes with its last process or socket. Idempotent.
Napi::Value NetnsDelete(const Napi::CallbackInfo& info) {
  std::string path = info[0].ToString();
  return RunOnThread(
      info.Env(),
      [path] {
        NftForget(path);
        if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
          Fail(errno, "umount2", path, "unbind");
        if (unlink(path.c_str()) < 0 && errno != ENOENT) Fail(errno, "unlink", path, "file");
      },
      [](Napi::Env env) { return env.Undefined(); });
}

// netSysctl(netns, {key: value})
Napi::Value NetSysctl(const Napi::CallbackInfo& info) {
  std::string netns = StringOr(info[0]);
  Pairs sysctls = PairsFrom(info[1]);
  return RunOnThread(
      info.Env(),
      [netns, sysctls] {
        EnterNetns(netns);
        WriteSysctls(sysctls);
      },
      [](Napi::Env env) { return env.Undefined(); });
}

// netSocket(netns, {protocol, address, port, listen, reuseAddress}) -> fd, non-blocking and close-on-exec; the caller owns it.
Napi::Value NetSocket(const Napi::CallbackInfo& info) {
  std::string netns = StringOr(info[0]);
  Bag bag = Bag::From(info[1].As<Napi::Object>());
  auto result = std::make_shared<int>(-1);
  return RunOnThread(
      info.Env(),
      [netns, bag, result] {
        std::string protocol = bag.str("protocol");
        std::string address = bag.str("address");
        std::string where = address + ":" + std::to_string(bag.num("port")) + "/" + protocol;
        EnterNetns(netns);
        struct sockaddr_in v4 = {};
        struct sockaddr_in6 v6 = {};
        struct sockaddr* name = reinterpret_cast<struct sockaddr*>(&v4);
        socklen_t size = sizeof v4;
        v4.sin_family = AF_INET;
        v4.sin_port = htons(bag.num("port"));
        if (inet_pton(AF_INET, address.c_str(), &v4.sin_addr) != 1) {
          v6.sin6_family = AF_INET6;
          v6.sin6_port = v4.sin_port;
          if (inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr) != 1) Fail(EINVAL, "inet_pton", where, "address");
          name = reinterpret_cast<struct sockaddr*>(&v6);
          size = sizeof v6;
        }
        int type = protocol == "udp" ? SOCK_DGRAM : SOCK_STREAM;
        int proto = protocol == "sctp" ? IPPROTO_SCTP : 0;
        Fd fd(socket(name->sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, proto));
        if (fd.get() < 0) Fail(errno, "socket", where, "socket");
        int one = 1;
        if (bag.flag("reuseAddress") && setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
          Fail(errno, "setsockopt", where, "SO_REUSEADDR");
        if (name->sa_family == AF_INET6 && setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) < 0)
          Fail(errno, "setsockopt", where, "IPV6_V6ONLY");
        if (bind(fd.get(), name, size) < 0) Fail(errno, "bind", where, "bind");
        if (bag.flag("listen") && listen(fd.get(), 128) < 0) Fail(errno, "listen", where, "listen");
        *result = fd.release();
      },
      [result](Napi::Env env) { return Napi::Number::New(env, *result); });
}
