#include "net_rtnl.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

NlMessage::NlMessage(int type, int flags, const void* header, size_t size) : buf_(NLMSG_HDRLEN) {
  auto* h = reinterpret_cast<struct nlmsghdr*>(buf_.data());
  h->nlmsg_type = type;
  h->nlmsg_flags = NLM_F_REQUEST | flags;
  raw(header, size);
}

void NlMessage::raw(const void* data, size_t size) {
  size_t at = buf_.size();
  buf_.resize(at + NLMSG_ALIGN(size));
  if (size) memcpy(buf_.data() + at, data, size);
}

void NlMessage::attr(int type, const void* data, size_t size) {
  struct rtattr a = {static_cast<unsigned short>(RTA_LENGTH(size)), static_cast<unsigned short>(type)};
  raw(&a, sizeof a);
  raw(data, size);
}

size_t NlMessage::begin(int type) {
  size_t at = buf_.size();
  attr(type, nullptr, 0);
  return at;
}

void NlMessage::end(size_t nest) {
  reinterpret_cast<struct rtattr*>(buf_.data() + nest)->rta_len = buf_.size() - nest;
}

std::vector<uint8_t>& NlMessage::bytes() {
  reinterpret_cast<struct nlmsghdr*>(buf_.data())->nlmsg_len = buf_.size();
  return buf_;
}

NlSocket::NlSocket(int family) : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family)) {
  if (fd_.get() < 0) Fail(errno, "socket AF_NETLINK", "", "netlink");
  int size = 4 << 20, one = 1;
  setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);     // best effort: the default serves small batches
  setsockopt(fd_.get(), SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);     // best effort: only for clearer messages
  struct timeval patience = {10, 0};
  if (setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
    Fail(errno, "setsockopt", "", "netlink");
}

static const char* ExtendedAck(const struct nlmsghdr* h) {
  if (!(h->nlmsg_flags & NLM_F_ACK_TLVS)) return "";
  auto* e = static_cast<const struct nlmsgerr*>(NLMSG_DATA(h));
  size_t skip = sizeof(*e);
  if (!(h->nlmsg_flags & NLM_F_CAPPED)) skip += e->msg.nlmsg_len - sizeof(e->msg);
  if (NLMSG_LENGTH(skip) > h->nlmsg_len) return "";
  auto attrs = NlAttributes(reinterpret_cast<const char*>(e) + skip, h->nlmsg_len - NLMSG_LENGTH(skip), 8);
  const struct rtattr* text = attrs[NLMSGERR_ATTR_MSG];
  return text ? static_cast<const char*>(RTA_DATA(text)) : "";
}

void NlSocket::transact(std::vector<NlMessage*>& requests,
                        const std::function<void(size_t, int, const char*)>& failed) {
  constexpr size_t kBatch = 64;  // acknowledgements of this many fit any receive buffer
  alignas(struct nlmsghdr) char in[65536];
  for (size_t from = 0; from < requests.size(); from += kBatch) {
    size_t count = std::min(kBatch, requests.size() - from);
    std::vector<uint8_t> out;
    uint32_t first = seq_ + 1;
    for (size_t i = 0; i < count; i++) {
      std::vector<uint8_t>& bytes = requests[from + i]->bytes();
      auto* h = reinterpret_cast<struct nlmsghdr*>(bytes.data());
      h->nlmsg_seq = ++seq_;
      h->nlmsg_flags |= NLM_F_ACK;
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
    if (send(fd_.get(), out.data(), out.size(), 0) < 0) Fail(errno, "send", "", "netlink");
    for (size_t left = count; left > 0;) {
      ssize_t n = recv(fd_.get(), in, sizeof in, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) Fail(errno == EAGAIN ? ETIMEDOUT : errno, "recv", "", "netlink");
      size_t size = n;
      for (auto* h = reinterpret_cast<struct nlmsghdr*>(in); NLMSG_OK(h, size); h = NLMSG_NEXT(h, size)) {
        if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_seq < first) continue;
        left--;
        int err = -static_cast<struct nlmsgerr*>(NLMSG_DATA(h))->error;
        if (err) failed(from + h->nlmsg_seq - first, err, ExtendedAck(h));
      }
    }
  }
}

void NlSocket::dump(NlMessage& request, const std::function<void(const struct nlmsghdr*)>& each) {
  std::vector<uint8_t>& bytes = request.bytes();
  auto* q = reinterpret_cast<struct nlmsghdr*>(bytes.data());
  q->nlmsg_seq = ++seq_;
  q->nlmsg_flags |= NLM_F_DUMP;
  if (send(fd_.get(), bytes.data(), bytes.size(), 0) < 0) Fail(errno, "send", "", "netlink");
  alignas(struct nlmsghdr) char in[65536];
  for (;;) {
    ssize_t n = recv(fd_.get(), in, sizeof in, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) Fail(errno == EAGAIN ? ETIMEDOUT : errno, "recv", "", "netlink");
    size_t size = n;
    for (auto* h = reinterpret_cast<struct nlmsghdr*>(in); NLMSG_OK(h, size); h = NLMSG_NEXT(h, size)) {
      if (h->nlmsg_seq != seq_) continue;
      if (h->nlmsg_type == NLMSG_DONE) return;
      if (h->nlmsg_type == NLMSG_ERROR) {
        int err = -static_cast<struct nlmsgerr*>(NLMSG_DATA(h))->error;
        Fail(err ? err : EIO, "netlink dump", "", "dump");
      }
      each(h);
    }
  }
}

std::vector<const struct rtattr*> NlAttributes(const void* first, size_t size, int max) {
  std::vector<const struct rtattr*> out(max + 1, nullptr);
  auto* a = static_cast<const struct rtattr*>(first);
  for (; RTA_OK(a, size); a = RTA_NEXT(a, size)) {
    int type = a->rta_type & NLA_TYPE_MASK;
    if (type <= max) out[type] = a;
  }
  return out;
}

std::vector<uint8_t> ParseMac(const std::string& text) {
  unsigned b[6];
  char rest;
  if (sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%c", b, b + 1, b + 2, b + 3, b + 4, b + 5, &rest) != 6)
    Fail(EINVAL, "parse", text, "MAC address");
  return std::vector<uint8_t>(b, b + 6);
}

std::vector<uint8_t> ParseAddress(const std::string& text) {
  std::vector<uint8_t> out(16);
  if (inet_pton(AF_INET, text.c_str(), out.data()) == 1) {
    out.resize(4);
    return out;
  }
  if (inet_pton(AF_INET6, text.c_str(), out.data()) != 1) Fail(EINVAL, "parse", text, "address");
  return out;
}

std::string FormatMac(const uint8_t* b) {
  char text[18];
  snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
  return text;
}

std::string FormatAddress(const uint8_t* bytes, size_t size) {
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(size == 16 ? AF_INET6 : AF_INET, bytes, text, sizeof text) ? text : "";
}
