// System call numbers by name and architecture. The tables are made at build time (seccomp/gen-tables.c) from libseccomp's.
#pragma once
#include <stdint.h>

// Little-endian only: a program is written in the byte order of the machine that runs it.
enum { TABLE_X86_64, TABLE_X86, TABLE_X32, TABLE_AARCH64, TABLE_ARM, TABLE_PPC64LE, TABLE_RISCV64, N_TABLES };

struct syscall_table {
  uint32_t token;           // AUDIT_ARCH_*
  int bits;                 // of an argument: 32 or 64
  int32_t socketcall, ipc;  // the call through which those families (also) go; -1: every call has a number of its own
  const int32_t *nr;        // by index of the name; -1: there is no such call
};
extern const struct syscall_table syscall_tables[N_TABLES];
extern const int syscall_names;
extern const char *const syscall_name[];  // sorted by strcmp
// Within socketcall (1 and up) or ipc (101 and up) the number that is the first argument there; 0: of neither family.
extern const uint8_t syscall_family[];
