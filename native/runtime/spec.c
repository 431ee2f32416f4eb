// What a document says in the wrong form must not pass as if it had not been said: "noNewPrivileges": "true", or masked paths in one string,
// would leave out a protection without a word. Fields whose own readers refuse other forms are not listed.
#include "spec.h"

enum form { BOOL, NUMBER, STRING, LIST, OBJECT };

static const struct {
  const char *path;
  enum form form;
} fields[] = {{"process.terminal", BOOL}, {"process.noNewPrivileges", BOOL}, {"process.user", OBJECT}, {"process.user.additionalGids", LIST},
              {"process.user.umask", NUMBER}, {"process.args", LIST}, {"process.env", LIST}, {"process.capabilities", OBJECT},
              {"process.capabilities.bounding", LIST}, {"process.capabilities.effective", LIST}, {"process.capabilities.permitted", LIST},
              {"process.capabilities.inheritable", LIST}, {"process.capabilities.ambient", LIST}, {"process.rlimits", LIST},
              {"process.oomScoreAdj", NUMBER}, {"process.apparmorProfile", STRING}, {"process.selinuxLabel", STRING}, {"root", OBJECT},
              {"root.readonly", BOOL}, {"mounts", LIST}, {"hooks", OBJECT}, {"hostname", STRING}, {"domainname", STRING}, {"linux", OBJECT},
              {"linux.namespaces", LIST}, {"linux.uidMappings", LIST}, {"linux.gidMappings", LIST}, {"linux.devices", LIST},
              {"linux.cgroupsPath", STRING}, {"linux.resources", OBJECT}, {"linux.resources.devices", LIST}, {"linux.resources.memory", OBJECT},
              {"linux.resources.cpu", OBJECT}, {"linux.resources.pids", OBJECT}, {"linux.rootfsPropagation", STRING}, {"linux.sysctl", OBJECT},
              {"linux.seccomp", OBJECT}, {"linux.maskedPaths", LIST}, {"linux.readonlyPaths", LIST}};

static bool has(const struct json *v, enum form form) {
  switch (form) {
    case BOOL: return v->type == J_BOOL;
    case NUMBER: return j_isnum(v);
    case STRING: return v->type == J_STR;
    case LIST: return v->type == J_ARR;
    case OBJECT: return v->type == J_OBJ;
  }
  return false;
}

int spec_check(const struct json *document, const char *part, struct err *e) {
  static const char *const names[] = {"true or false", "a whole number", "a string", "a list", "an object"};
  STAGE("config");
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    const char *path = fields[i].path;
    if (part && (strncmp(path, part, strlen(part)) || path[strlen(part)] != '.')) continue;
    const struct json *v = j_path(document, part ? path + strlen(part) + 1 : path);
    if (v && !has(v, fields[i].form)) return fail(e, EINVAL, "parse", path, "%s must be %s", path, names[fields[i].form]);
  }
  return 0;
}
