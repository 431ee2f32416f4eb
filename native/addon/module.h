#pragma once
#include <napi.h>

void RegisterProcess(Napi::Env env, Napi::Object exports);  // process.cc: spawn, pidfd, descriptors, mounts, seccomp
void RegisterNet(Napi::Env env, Napi::Object exports);      // net.cc: namespaces, rtnetlink, nftables, sockets in a namespace
