#include "module.h"

void RegisterProcess(Napi::Env, Napi::Object) {}
