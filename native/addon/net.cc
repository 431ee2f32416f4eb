// Network calls of the addon. Every call returns a promise and works on a thread of the addon's own.
#include "module.h"
#include "net_internal.h"

void RegisterNet(Napi::Env env, Napi::Object exports) {
  auto add = [&](const char* name, Napi::Value (*call)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, call, name));
  };
  add("netnsCreate", NetnsCreate);
  add("netnsDelete", NetnsDelete);
  add("netSysctl", NetSysctl);
  add("netSocket", NetSocket);
  add("netLink", NetLink);
  add("netLinks", NetLinks);
  add("netAddresses", NetAddresses);
  add("netRoutes", NetRoutes);
  add("netNeighbours", NetNeighbours);
  add("netNft", NetNft);
  add("netConntrackDelete", NetConntrackDelete);
  add("netRelay", NetRelay);
}
