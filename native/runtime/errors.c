// Errors as data: stage, call, errno, path, and one sentence.
#include <stdarg.h>
#include <stdio.h>

#include "base.h"

const char *err_stage = "config";

int fail(struct err *e, int eno, const char *call, const char *path, const char *fmt, ...) {
  if (!eno) eno = errno;
  e->code = eno;
  snprintf(e->stage, sizeof e->stage, "%s", err_stage);
  snprintf(e->call, sizeof e->call, "%s", call);
  snprintf(e->path, sizeof e->path, "%s", path ? path : "");
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(e->msg, sizeof e->msg, fmt, ap);
  va_end(ap);
  return -1;
}

const char *errno_name(int eno) {
  switch (eno) {
#define N(x) \
  case x:    \
    return #x;
    N(EPERM) N(ENOENT) N(ESRCH) N(EINTR) N(EIO) N(ENXIO) N(E2BIG) N(ENOEXEC) N(EBADF) N(ECHILD) N(EAGAIN) N(ENOMEM)
    N(EACCES) N(EFAULT) N(ENOTBLK) N(EBUSY) N(EEXIST) N(EXDEV) N(ENODEV) N(ENOTDIR) N(EISDIR) N(EINVAL) N(ENFILE)
    N(EMFILE) N(ENOTTY) N(ETXTBSY) N(EFBIG) N(ENOSPC) N(ESPIPE) N(EROFS) N(EMLINK) N(EPIPE) N(EDOM) N(ERANGE)
    N(EDEADLK) N(ENAMETOOLONG) N(ENOLCK) N(ENOSYS) N(ENOTEMPTY) N(ELOOP) N(EPROTO) N(EOVERFLOW) N(EILSEQ) N(EUSERS)
    N(ENOTSOCK) N(EMSGSIZE) N(EPROTOTYPE) N(EOPNOTSUPP) N(EADDRINUSE) N(ENETDOWN) N(ECONNRESET) N(ENOBUFS)
    N(ETIMEDOUT) N(ECONNREFUSED) N(EALREADY) N(ESTALE) N(EDQUOT) N(ECANCELED) N(EKEYREJECTED) N(ENODATA)
#undef N
    default:
      return "EUNKNOWN";
  }
}
