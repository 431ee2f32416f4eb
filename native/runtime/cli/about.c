// spec and features: a bundle to start from, and what this runtime and kernel can do.
#include <getopt.h>
#include <stdio.h>

#include "../kernel.h"
#include "cli.h"

// On v1 a container sees the host's groups, as those of crun's and runc's `spec` do: its own are mounted.
static bool unified(void) { return access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0; }

int cmd_spec(int argc, char **argv) {
  static const struct option opts[] = {{"bundle", 1, 0, 'b'}, {"rootless", 0, 0, 'r'}, {"file", 1, 0, 'f'}, {0}};
  const char *bundle = ".", *name = NULL;
  bool rootless = false;
  int c;
  while ((c = getopt_long(argc, argv, "b:f:", opts, NULL)) != -1) {
    if (c == 'b') bundle = optarg;
    else if (c == 'f') name = optarg;
    else if (c == 'r') rootless = true;
    else return 1;
  }
  static const char head[] =
      "{\n  \"ociVersion\": \"1.0.2\",\n  \"process\": {\n    \"terminal\": true,\n    \"user\": {\"uid\": 0, \"gid\": 0},\n"
      "    \"args\": [\"sh\"],\n    \"env\": [\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\", \"TERM=xterm\"],\n"
      "    \"cwd\": \"/\",\n    \"capabilities\": {\n";
  static const char *const sets[] = {"bounding", "effective", "permitted"};
  autobuf b = {0};
  buf_str(&b, head);
  for (int i = 0; i < 3; i++)
    buf_fmt(&b, "      \"%s\": [\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"]%s\n", sets[i], i < 2 ? "," : "");
  buf_str(&b,
          "    },\n    \"rlimits\": [{\"type\": \"RLIMIT_NOFILE\", \"hard\": 1024, \"soft\": 1024}],\n    \"noNewPrivileges\": true\n  },\n"
          "  \"root\": {\"path\": \"rootfs\", \"readonly\": true},\n  \"hostname\": \"shoal\",\n  \"mounts\": [\n"
          "    {\"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\"},\n"
          "    {\"destination\": \"/dev\", \"type\": \"tmpfs\", \"source\": \"tmpfs\", \"options\": [\"nosuid\", \"strictatime\", \"mode=755\", \"size=65536k\"]},\n");
  buf_fmt(&b, "    {\"destination\": \"/dev/pts\", \"type\": \"devpts\", \"source\": \"devpts\", \"options\": [\"nosuid\", \"noexec\", \"newinstance\", \"ptmxmode=0666\", \"mode=0620\"%s]},\n",
          rootless ? "" : ", \"gid=5\"");
  buf_str(&b,
          "    {\"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"source\": \"shm\", \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"mode=1777\", \"size=65536k\"]},\n"
          "    {\"destination\": \"/dev/mqueue\", \"type\": \"mqueue\", \"source\": \"mqueue\", \"options\": [\"nosuid\", \"noexec\", \"nodev\"]},\n"
          "    {\"destination\": \"/sys\", \"type\": \"sysfs\", \"source\": \"sysfs\", \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"ro\"]}");
  if (!rootless) buf_str(&b, ",\n    {\"destination\": \"/sys/fs/cgroup\", \"type\": \"cgroup\", \"source\": \"cgroup\", \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"relatime\", \"ro\"]}");
  buf_str(&b, "\n  ],\n  \"linux\": {\n");
  if (rootless)
    buf_fmt(&b, "    \"uidMappings\": [{\"containerID\": 0, \"hostID\": %u, \"size\": 1}],\n    \"gidMappings\": [{\"containerID\": 0, \"hostID\": %u, \"size\": 1}],\n",
            getuid(), getgid());
  else buf_str(&b, "    \"resources\": {\"devices\": [{\"allow\": false, \"access\": \"rwm\"}]},\n");
  buf_fmt(&b, "    \"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"network\"}, {\"type\": \"ipc\"}, {\"type\": \"uts\"}, {\"type\": \"mount\"}%s%s],\n",
          unified() ? ", {\"type\": \"cgroup\"}" : "", rootless ? ", {\"type\": \"user\"}" : "");
  buf_str(&b,
          "    \"maskedPaths\": [\"/proc/acpi\", \"/proc/asound\", \"/proc/kcore\", \"/proc/keys\", \"/proc/latency_stats\", \"/proc/timer_list\", \"/proc/timer_stats\", \"/proc/sched_debug\", \"/sys/firmware\", \"/proc/scsi\"],\n"
          "    \"readonlyPaths\": [\"/proc/bus\", \"/proc/fs\", \"/proc/irq\", \"/proc/sys\", \"/proc/sysrq-trigger\"]\n  }\n}\n");
  autofree char *file = name ? xstrdup(name) : xasprintf("%s/config.json", bundle);
  struct err e = {0};
  autofd fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0 || write_all(fd, b.p, b.len) < 0) return fail(&e, 0, "open", file, "cannot write %s: %s", file, strerror(errno)), cli_fail(&e);
  return 0;
}

int cmd_features(int argc, char **argv) {
  (void)argc;
  (void)argv;
  autobuf b = {0};
  buf_str(&b, "{\"ociVersionMin\":\"1.0.0\",\"ociVersionMax\":\"1.2.0\",\"hooks\":[\"prestart\",\"createRuntime\",\"createContainer\",\"startContainer\",\"poststart\",\"poststop\"],"
              "\"mountOptions\":[\"async\",\"atime\",\"bind\",\"copy-symlink\",\"defaults\",\"dest-nofollow\",\"dev\",\"diratime\",\"dirsync\",\"exec\",\"idmap\",\"lazytime\",\"loud\",\"mand\",\"noatime\",\"nodev\",\"nodiratime\",\"noexec\",\"nomand\",\"norelatime\",\"nostrictatime\",\"nosuid\",\"nosymfollow\",\"private\",\"ratime\",\"rbind\",\"rdev\",\"rdiratime\",\"relatime\",\"remount\",\"rexec\",\"ridmap\",\"rnoatime\",\"rnodev\",\"rnodiratime\",\"rnoexec\",\"rnorelatime\",\"rnostrictatime\",\"rnosuid\",\"rnosymfollow\",\"ro\",\"rprivate\",\"rrelatime\",\"rro\",\"rrw\",\"rshared\",\"rslave\",\"rstrictatime\",\"rsuid\",\"rsymfollow\",\"runbindable\",\"rw\",\"shared\",\"silent\",\"slave\",\"src-nofollow\",\"strictatime\",\"suid\",\"symfollow\",\"sync\",\"tmpcopyup\",\"unbindable\"],"
              "\"linux\":{\"namespaces\":[");
  bool first = true;
  for (int k = 0; k < 8; k++) {
    autofree char *p = xasprintf("/proc/self/ns/%s", namespace_table[k].proc);
    if (access(p, F_OK) < 0) continue;
    buf_fmt(&b, "%s\"%s\"", first ? "" : ",", namespace_table[k].name);
    first = false;
  }
  buf_str(&b, "],\"capabilities\":[");
  for (int c = 0; c <= caps_last() && cap_name(c); c++) buf_fmt(&b, "%s\"CAP_%s\"", c ? "," : "", cap_name(c));
  bool apparmor = access("/sys/module/apparmor", F_OK) == 0, selinux = access("/sys/fs/selinux", F_OK) == 0;
  buf_str(&b, "],\"cgroup\":{\"v1\":true,\"v2\":true,\"systemd\":false,\"systemdUser\":false,\"rdma\":true},");
  buf_str(&b, "\"seccomp\":{\"enabled\":true,\"actions\":[\"SCMP_ACT_ALLOW\",\"SCMP_ACT_ERRNO\",\"SCMP_ACT_KILL\",\"SCMP_ACT_KILL_PROCESS\",\"SCMP_ACT_KILL_THREAD\",\"SCMP_ACT_LOG\",\"SCMP_ACT_NOTIFY\",\"SCMP_ACT_TRACE\",\"SCMP_ACT_TRAP\"],"
              "\"operators\":[\"SCMP_CMP_NE\",\"SCMP_CMP_LT\",\"SCMP_CMP_LE\",\"SCMP_CMP_EQ\",\"SCMP_CMP_GE\",\"SCMP_CMP_GT\",\"SCMP_CMP_MASKED_EQ\"],"
              "\"archs\":[\"SCMP_ARCH_AARCH64\",\"SCMP_ARCH_ARM\",\"SCMP_ARCH_MIPS\",\"SCMP_ARCH_MIPS64\",\"SCMP_ARCH_MIPS64N32\",\"SCMP_ARCH_MIPSEL\",\"SCMP_ARCH_MIPSEL64\",\"SCMP_ARCH_MIPSEL64N32\",\"SCMP_ARCH_PPC\",\"SCMP_ARCH_PPC64\",\"SCMP_ARCH_PPC64LE\",\"SCMP_ARCH_RISCV64\",\"SCMP_ARCH_S390\",\"SCMP_ARCH_S390X\",\"SCMP_ARCH_X32\",\"SCMP_ARCH_X86\",\"SCMP_ARCH_X86_64\"],"
              "\"knownFlags\":[\"SECCOMP_FILTER_FLAG_TSYNC\",\"SECCOMP_FILTER_FLAG_LOG\",\"SECCOMP_FILTER_FLAG_SPEC_ALLOW\",\"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\"]},");
  buf_fmt(&b, "\"apparmor\":{\"enabled\":%s},\"selinux\":{\"enabled\":%s},\"memoryPolicy\":{\"modes\":[\"MPOL_DEFAULT\",\"MPOL_PREFERRED\",\"MPOL_BIND\",\"MPOL_INTERLEAVE\",\"MPOL_LOCAL\",\"MPOL_PREFERRED_MANY\",\"MPOL_WEIGHTED_INTERLEAVE\"],"
          "\"flags\":[\"MPOL_F_STATIC_NODES\",\"MPOL_F_RELATIVE_NODES\",\"MPOL_F_NUMA_BALANCING\"]},\"mountExtensions\":{\"idmap\":{\"enabled\":true}}},"
          "\"annotations\":{},\"potentiallyUnsafeConfigAnnotations\":[\"run.oci.\"]}\n", apparmor ? "true" : "false",
          selinux ? "true" : "false");
  return fputs(b.p, stdout) < 0;
}
