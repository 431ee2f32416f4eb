// Run at build time: the system call names of seccomp-syscalls.h on standard input, one a line and sorted, tables as C on standard output.
#include <linux/audit.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *table, *audit;
  uint32_t arch;
  int bits, base;
} arches[] = {{"TABLE_X86_64", "AUDIT_ARCH_X86_64", SCMP_ARCH_X86_64, 64, 0}, {"TABLE_X86", "AUDIT_ARCH_I386", SCMP_ARCH_X86, 32, 0},
              {"TABLE_X32", "AUDIT_ARCH_X86_64", SCMP_ARCH_X32, 32, 0x40000000}, {"TABLE_AARCH64", "AUDIT_ARCH_AARCH64", SCMP_ARCH_AARCH64, 64, 0},
              {"TABLE_ARM", "AUDIT_ARCH_ARM", SCMP_ARCH_ARM, 32, 0}, {"TABLE_PPC64LE", "AUDIT_ARCH_PPC64LE", SCMP_ARCH_PPC64LE, 64, 0},
              {"TABLE_RISCV64", "AUDIT_ARCH_RISCV64", SCMP_ARCH_RISCV64, 64, 0}};
enum { N_ARCHES = sizeof arches / sizeof arches[0], MAX_NAMES = 2048 };

// Calls younger than some libseccomp that is still in use. From 424 on, a new call has one number everywhere (x32: plus its bit).
static const struct {
  const char *name;
  int nr;
} young[] = {{"cachestat", 451}, {"fchmodat2", 452}, {"file_getattr", 468}, {"file_setattr", 469}, {"futex_requeue", 456}, {"futex_wait", 455},
             {"futex_wake", 454}, {"getxattrat", 464}, {"listmount", 458}, {"listxattrat", 465}, {"lsm_get_self_attr", 459},
             {"lsm_list_modules", 461}, {"lsm_set_self_attr", 460}, {"map_shadow_stack", 453}, {"mseal", 462}, {"open_tree_attr", 467},
             {"removexattrat", 466}, {"setxattrat", 463}, {"statmount", 457}};
enum { N_YOUNG = sizeof young / sizeof young[0] };

static char *names[MAX_NAMES];
static int n_names;

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void add(const char *name) {
  for (int i = 0; i < n_names; i++)
    if (!strcmp(names[i], name)) return;
  if (n_names == MAX_NAMES) exit(1);
  names[n_names++] = strdup(name);
}

// What libseccomp calls by a pseudo number, because it goes through socketcall or ipc, may have a number of its own as well.
static int direct(uint32_t arch, const char *name) {
  for (int nr = 0; nr < 600; nr++) {
    char *found = seccomp_syscall_resolve_num_arch(arch, nr);
    int same = found && !strcmp(found, name);
    free(found);
    if (same) return nr;
  }
  return -1;
}

static int family(int pseudo) { return pseudo <= -101 && pseudo > -200 ? -pseudo - 100 : pseudo <= -201 && pseudo > -300 ? -pseudo - 100 : 0; }

int main(void) {
  char line[128];
  static int mux[MAX_NAMES];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (*line) add(line);
  }
  if (n_names < 300) return fprintf(stderr, "gen-tables: only %d names on standard input\n", n_names), 1;
  for (int i = 0; i < N_YOUNG; i++) add(young[i].name);
  qsort(names, (size_t)n_names, sizeof *names, by_name);
  puts("// Made by seccomp/gen-tables.c.\n#include \"syscall-tables.h\"\n#include <linux/audit.h>");
  for (int k = 0; k < N_ARCHES; k++) {
    printf("static const int32_t nr_%d[] = {", k);
    for (int i = 0; i < n_names; i++) {
      int nr = seccomp_syscall_resolve_name_arch(arches[k].arch, names[i]);
      int through = seccomp_syscall_resolve_name_rewrite(arches[k].arch, names[i]);
      if (nr < 0 && through >= 0 && family(nr)) {
        mux[i] = family(nr);
        nr = direct(arches[k].arch, names[i]);
      }
      if (nr == __NR_SCMP_ERROR)
        for (int y = 0; y < N_YOUNG; y++)
          if (!strcmp(young[y].name, names[i])) nr = young[y].nr + arches[k].base;
      printf("%d,", nr < 0 ? -1 : nr);
    }
    puts("};");
  }
  puts("const struct syscall_table syscall_tables[N_TABLES] = {");
  for (int k = 0; k < N_ARCHES; k++) {
    int s = seccomp_syscall_resolve_name_rewrite(arches[k].arch, "recv"), c = seccomp_syscall_resolve_name_rewrite(arches[k].arch, "semop");
    if (seccomp_syscall_resolve_name_arch(arches[k].arch, "recv") >= 0) s = -1;
    if (seccomp_syscall_resolve_name_arch(arches[k].arch, "semop") >= 0) c = -1;
    printf("  [%s] = {%s, %d, %d, %d, nr_%d},\n", arches[k].table, arches[k].audit, arches[k].bits, s < 0 ? -1 : s, c < 0 ? -1 : c, k);
  }
  printf("};\nconst int syscall_names = %d;\nconst char *const syscall_name[] = {", n_names);
  for (int i = 0; i < n_names; i++) printf("\"%s\",", names[i]);
  puts("};\nconst uint8_t syscall_family[] = {");
  for (int i = 0; i < n_names; i++) printf("%d,", mux[i]);
  puts("};");
  return 0;
}
