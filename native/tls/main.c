// shoal-tls ADDRESS PORT NAME [--ca FILE] [--cert FILE --key FILE] [--skip-verify]: carries descriptor 0, a stream socket, to a TLS server.
//
// The shim (shim/tls.c) starts it for each connection to a log server. Its first bytes on the socket are "+" once the server has
// proved to be NAME, or else "-" and why not. From then on only what the shim sends is carried. It ends when the server
// goes, and when the shim has closed its side and all is sent, for which the server gets a few seconds.
#include <arpa/inet.h>
#include <grp.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "../runtime/base.h"

enum { CONNECT_MS = 5000, LAST_MS = 5000, BLOCK = 1 << 14, NOBODY = 65534 };

static const char *ca, *cert, *key;
static bool skip_verify;

static _Noreturn void refuse(const char *what, const char *why) {
  autofree char *text = xasprintf("-%s: %s", what, why);
  (void)write_all(0, text, strlen(text));
  exit(1);
}

static _Noreturn void refuse_tls(const char *what) {
  unsigned long code = ERR_peek_error();  // the first: what follows it are its consequences
  const char *why = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
  refuse(what, why ? why : "the connection was closed");
}

// Files of root are read before it becomes nobody.
static SSL_CTX *context(void) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
  if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION)) refuse_tls("TLS");
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  (void)SSL_CTX_set_default_verify_paths(ctx);
  if (ca && SSL_CTX_load_verify_locations(ctx, ca, NULL) != 1) refuse_tls(ca);
  if (cert && SSL_CTX_use_certificate_chain_file(ctx, cert) != 1) refuse_tls(cert);
  if (key && SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) refuse_tls(key);
  SSL_CTX_set_verify(ctx, skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
  return ctx;
}

static int dial(const char *address, const char *port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = v4.sin_port};
  bool is4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
  if (!is4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1) refuse(address, "is no address");
  int fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) refuse("socket", strerror(errno));
  if (connect(fd, is4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is4 ? sizeof v4 : sizeof v6) < 0 && errno != EINPROGRESS)
    refuse(address, strerror(errno));
  return fd;
}

// What SSL_get_error wants to wait for.
static short wanted(SSL *ssl, int r) {
  switch (SSL_get_error(ssl, r)) {
    case SSL_ERROR_WANT_READ: return POLLIN;
    case SSL_ERROR_WANT_WRITE: return POLLOUT;
    default: return 0;
  }
}

static void shake_hands(SSL *ssl, int fd, const char *address) {
  int64_t until = mono_ms() + CONNECT_MS;
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  int code = 0;
  socklen_t n = sizeof code;
  if (RETRY(poll(&p, 1, CONNECT_MS)) <= 0) refuse(address, strerror(ETIMEDOUT));
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &n) < 0 || code) refuse(address, strerror(code));
  for (int r; (r = SSL_connect(ssl)) != 1;) {
    if (!(p.events = wanted(ssl, r))) {
      long verify = SSL_get_verify_result(ssl);
      if (verify != X509_V_OK) refuse("its certificate", X509_verify_cert_error_string(verify));
      refuse_tls("TLS");
    }
    int64_t left = until - mono_ms();
    if (left <= 0 || RETRY(poll(&p, 1, (int)left)) <= 0) refuse("TLS", strerror(ETIMEDOUT));
  }
}

static void carry(SSL *ssl, int fd) {
  static char b[BLOCK], ignored[BLOCK];
  size_t at = 0, len = 0;
  int64_t until = 0;  // once the shim has closed its side
  for (;;) {
    short events = POLLIN;
    while (at < len) {
      ERR_clear_error();
      int w = SSL_write(ssl, b + at, (int)(len - at));
      short more = w > 0 ? 0 : wanted(ssl, w);
      if (w <= 0 && !more) return;
      if (w <= 0) {
        events |= more;
        break;
      }
      at += (size_t)w;
    }
    struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = at < len ? -1 : 0, .events = POLLIN}};
    if (until && mono_ms() >= until) return;
    if (RETRY(poll(p, 2, until ? 100 : -1)) < 0) return;
    if (at == len && p[1].revents) {
      ssize_t n = RETRY(read(0, b, sizeof b));
      if (n <= 0) return (void)SSL_shutdown(ssl);
      at = 0;
      len = (size_t)n;
    }
    if (at < len && !until) {
      struct pollfd shim = {.fd = 0, .events = 0};
      if (poll(&shim, 1, 0) > 0 && (shim.revents & POLLHUP)) until = mono_ms() + LAST_MS;
    }
    if (p[0].revents & (POLLIN | POLLHUP | POLLERR)) {
      ERR_clear_error();
      int r = SSL_read(ssl, ignored, sizeof ignored);
      if (r <= 0 && !wanted(ssl, r)) return;
    }
  }
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  for (int i = 4; i < argc; i++) {
    if (!strcmp(argv[i], "--skip-verify")) skip_verify = true;
    else if (i + 1 < argc && !strcmp(argv[i], "--ca")) ca = argv[++i];
    else if (i + 1 < argc && !strcmp(argv[i], "--cert")) cert = argv[++i];
    else if (i + 1 < argc && !strcmp(argv[i], "--key")) key = argv[++i];
    else argc = 0;
  }
  if (argc < 4) return fprintf(stderr, "usage: shoal-tls ADDRESS PORT NAME [--ca FILE] [--cert FILE --key FILE] [--skip-verify] <>SOCKET\n"), 2;
  const char *address = argv[1], *name = argv[3];
  SSL_CTX *ctx = context();
  if (chdir("/") < 0 || setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    refuse("nobody", strerror(errno));
  int fd = dial(address, argv[2]);
  SSL *ssl = SSL_new(ctx);
  bool is_address = ssl && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
  if (!ssl || SSL_set_fd(ssl, fd) != 1 || (!is_address && (SSL_set1_host(ssl, name) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1))) refuse_tls("TLS");
  shake_hands(ssl, fd, address);
  if (write_all(0, "+", 1) < 0) return 1;
  carry(ssl, fd);
  return 0;
}
