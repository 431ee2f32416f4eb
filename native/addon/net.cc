#include "module.h"

void RegisterNet(Napi::Env, Napi::Object) {}
