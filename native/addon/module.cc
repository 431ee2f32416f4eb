// The addon's table of contents: each topic registers its own calls.
#include <napi.h>

#include "module.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  RegisterProcess(env, exports);
  RegisterNet(env, exports);
  return exports;
}

NODE_API_MODULE(shoal, Init)
