// A volume plugin for tests that fits into a rootfs of its own: one static program. A volume is a tmpfs on
// /mnt/volumes/NAME, mounted while it is used, so that a test sees whether mounts come through to the host. The greeting in
// its log holds GREETING of its environment. With EXIT=1 it ends at once with status 3.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ROOT "/mnt/volumes"
static char names[64][128];
static int users[64], count;

static int find(const char *name) {
  for (int i = 0; i < count; i++)
    if (!strcmp(names[i], name)) return i;
  return -1;
}

static void field(const char *body, const char *key, char *out, size_t size) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\":\"", key);
  const char *at = strstr(body, quoted);
  out[0] = 0;
  if (!at) return;
  at += strlen(quoted);
  size_t n = strcspn(at, "\"");
  snprintf(out, size, "%.*s", (int)n, at);
}

static void answer(const char *path, const char *body, char *out, size_t size) {
  char name[128], dir[256];
  field(body, "Name", name, sizeof name);
  snprintf(dir, sizeof dir, ROOT "/%s", name);
  int i = find(name);
  printf("%s %s\n", path, name);
  fflush(stdout);
  if (!strcmp(path, "/Plugin.Activate")) snprintf(out, size, "{\"Implements\":[\"VolumeDriver\"]}");
  else if (!strcmp(path, "/VolumeDriver.Capabilities")) snprintf(out, size, "{\"Capabilities\":{\"Scope\":\"local\"}}");
  else if (!strcmp(path, "/VolumeDriver.Create")) {
    if (i < 0 && count < 64) strcpy(names[count++], name);
    snprintf(out, size, "{}");
  } else if (!strcmp(path, "/VolumeDriver.List")) {
    size_t n = (size_t)snprintf(out, size, "{\"Volumes\":[");
    for (int k = 0; k < count; k++)
      n += (size_t)snprintf(out + n, size - n, "%s{\"Name\":\"%s\"}", k ? "," : "", names[k]);
    snprintf(out + n, size - n, "]}");
  } else if (i < 0) snprintf(out, size, "{\"Err\":\"no such volume\"}");
  else if (!strcmp(path, "/VolumeDriver.Get"))
    snprintf(out, size, "{\"Volume\":{\"Name\":\"%s\",\"Mountpoint\":\"%s\"}}", name, users[i] ? dir : "");
  else if (!strcmp(path, "/VolumeDriver.Mount")) {
    if (users[i]++ == 0) {
      mkdir(dir, 0755);
      if (mount("shelf", dir, "tmpfs", 0, "size=1m") < 0) {
        users[i] = 0;
        snprintf(out, size, "{\"Err\":\"mount: %s\"}", strerror(errno));
        return;
      }
    }
    snprintf(out, size, "{\"Mountpoint\":\"%s\"}", dir);
  } else if (!strcmp(path, "/VolumeDriver.Unmount")) {
    if (users[i] > 0 && --users[i] == 0) umount2(dir, MNT_DETACH);
    snprintf(out, size, "{}");
  } else if (!strcmp(path, "/VolumeDriver.Remove")) {
    memmove(names[i], names[count - 1], sizeof names[0]);
    users[i] = users[--count];
    users[count] = 0;
    snprintf(out, size, "{}");
  } else snprintf(out, size, "{\"Err\":\"no method %s\"}", path);
}

static void end(int signal) {
  (void)signal;
  _exit(0);
}

int main(void) {
  signal(SIGTERM, end);  // the first process of its namespace has no default for it
  struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/run/docker/plugins/shelf.sock"};
  const char *greeting = getenv("GREETING");
  printf("greeting %s\n", greeting ? greeting : "");
  fflush(stdout);
  if (getenv("EXIT") && !strcmp(getenv("EXIT"), "1")) return 3;
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  unlink(a.sun_path);
  if (bind(s, (struct sockaddr *)&a, sizeof a) < 0 || listen(s, 16) < 0) {
    perror("listen");
    return 1;
  }
  for (;;) {
    static char request[65536], out[16384];
    int c = accept(s, NULL, NULL);
    if (c < 0) continue;
    size_t have = 0;
    for (;;) {
      ssize_t n = read(c, request + have, sizeof request - 1 - have);
      if (n <= 0) break;
      have += (size_t)n;
      request[have] = 0;
      char *body = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "content-length:");
      if (body && length && have >= (size_t)(body + 4 - request) + (size_t)atoi(length + 15)) {
        char path[64] = "";
        sscanf(request, "POST %63s", path);
        answer(path, body + 4, out, sizeof out);
        dprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(out), out);
        break;
      }
    }
    close(c);
  }
}
