// Calls of each net_*.cc topic, registered by net.cc.
#pragma once
#include <napi.h>

Napi::Value NetnsCreate(const Napi::CallbackInfo& info);
Napi::Value NetnsDelete(const Napi::CallbackInfo& info);
Napi::Value NetSysctl(const Napi::CallbackInfo& info);
Napi::Value NetSocket(const Napi::CallbackInfo& info);
Napi::Value NetLink(const Napi::CallbackInfo& info);
Napi::Value NetLinks(const Napi::CallbackInfo& info);
Napi::Value NetAddresses(const Napi::CallbackInfo& info);
Napi::Value NetRoutes(const Napi::CallbackInfo& info);
Napi::Value NetNeighbours(const Napi::CallbackInfo& info);
Napi::Value NetNft(const Napi::CallbackInfo& info);
Napi::Value NetConntrackDelete(const Napi::CallbackInfo& info);
Napi::Value NetRelay(const Napi::CallbackInfo& info);

// Drops the cached nftables context of a namespace, which would keep the namespace alive.
void NftForget(const std::string& netns);
