// nftables rulesets as text, run by libnftables inside a given namespace.
//
// A context stays bound to the namespace in which it was made, whichever thread uses it, and making one costs three
// times what an element change does, so the last ones used are kept. libnftables is not documented as thread-safe: one
// lock covers all of them.
#include <nftables/libnftables.h>
#include <string.h>
#include <sys/stat.h>

#include <list>
#include <memory>
#include <mutex>

#include "net_internal.h"
#include "net_thread.h"

namespace {

constexpr size_t kMaxContexts = 64;

struct Context {
  std::string netns;
  dev_t device;
  ino_t inode;  // of the namespace: the same path may be bound to another one later
  struct nft_ctx* nft;
};

struct Cache {
  std::mutex mutex;
  std::list<Context> contexts;  // the last used in front
};
Cache& TheCache() {
  static Cache* cache = new Cache;
  return *cache;
}

void Drop(Cache& cache, std::list<Context>::iterator it) {
  nft_ctx_free(it->nft);
  cache.contexts.erase(it);
}

// libnftables leaves no dependable errno, only the kernel's words in its messages.
int ErrnoOf(const char* messages) {
  for (int err : {ENOENT, EEXIST, EPERM, EBUSY, EOPNOTSUPP, ENOMEM, ENOSPC, ENOBUFS, EMSGSIZE})
    if (strstr(messages, strerror(err))) return err;
  return EINVAL;
}

struct nft_ctx* Find(Cache& cache, const std::string& netns) {
  struct stat st = {};
  std::string path = netns.empty() ? "/proc/thread-self/ns/net" : netns;
  if (stat(path.c_str(), &st) < 0) Fail(errno, "stat", path, "namespace");
  for (auto it = cache.contexts.begin(); it != cache.contexts.end(); ++it) {
    if (it->netns != netns) continue;
    if (it->device == st.st_dev && it->inode == st.st_ino) {
      cache.contexts.splice(cache.contexts.begin(), cache.contexts, it);
      return it->nft;
    }
    Drop(cache, it);
    break;
  }
  EnterNetns(netns);
  struct nft_ctx* nft = nft_ctx_new(NFT_CTX_DEFAULT);
  if (!nft) Fail(ENOMEM, "nft_ctx_new", netns, "context");
  nft_ctx_buffer_output(nft);
  nft_ctx_buffer_error(nft);
  cache.contexts.push_front({netns, st.st_dev, st.st_ino, nft});
  while (cache.contexts.size() > kMaxContexts) Drop(cache, std::prev(cache.contexts.end()));
  return nft;
}

}  // namespace

void NftForget(const std::string& netns) {
  Cache& cache = TheCache();
  std::unique_lock lock(cache.mutex);
  for (auto it = cache.contexts.begin(); it != cache.contexts.end(); ++it)
    if (it->netns == netns) return Drop(cache, it);
}

// netNft(netns, text) -> what a listing printed. One text is one transaction: all of it or nothing.
Napi::Value NetNft(const Napi::CallbackInfo& info) {
  std::string netns = StringOr(info[0]);
  std::string text = info[1].ToString();
  auto output = std::make_shared<std::string>();
  return RunOnThread(
      info.Env(),
      [netns, text, output] {
        Cache& cache = TheCache();
        std::unique_lock lock(cache.mutex);
        struct nft_ctx* nft = Find(cache, netns);
        int failed = nft_run_cmd_from_buffer(nft, text.c_str());
        const char* out = nft_ctx_get_output_buffer(nft);
        *output = out ? out : "";
        const char* errors = nft_ctx_get_error_buffer(nft);
        if (failed) Fail(errors ? ErrnoOf(errors) : EINVAL, "nft", netns, "ruleset", errors ? errors : "");
      },
      [output](Napi::Env env) { return Napi::String::New(env, *output); });
}
