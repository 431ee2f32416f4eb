// Netlink messages and the socket they go by, for the topics that speak rtnetlink or ctnetlink.
#pragma once
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <string>
#include <vector>

#include "net_thread.h"

// One request under construction.
class NlMessage {
 public:
  NlMessage(int type, int flags, const void* header, size_t size);
  void attr(int type, const void* data, size_t size);
  void str(int type, const std::string& s) { attr(type, s.c_str(), s.size() + 1); }
  void u8(int type, uint8_t v) { attr(type, &v, sizeof v); }
  void u16(int type, uint16_t v) { attr(type, &v, sizeof v); }
  void u32(int type, uint32_t v) { attr(type, &v, sizeof v); }
  size_t begin(int type);    // opens a nested attribute
  void raw(const void* data, size_t size);  // bytes inside the open attribute
  void end(size_t nest);
  std::vector<uint8_t>& bytes();

 private:
  std::vector<uint8_t> buf_;
};

// A netlink socket in the namespace that the calling thread is in.
class NlSocket {
 public:
  explicit NlSocket(int family);
  // Sends the requests together and waits for each one's acknowledgement; `failed(i, errno)` is told of refusals.
  void transact(std::vector<NlMessage*>& requests, const std::function<void(size_t, int, const char*)>& failed);
  // Sends one dump request and hands out each answer.
  void dump(NlMessage& request, const std::function<void(const struct nlmsghdr*)>& each);

 private:
  Fd fd_;
  uint32_t seq_ = 0;
};

// Attributes of an answer by type (0..max); absent ones are null.
std::vector<const struct rtattr*> NlAttributes(const void* first, size_t size, int max);

// "aa:bb:cc:dd:ee:ff" and dotted or colon addresses, to bytes; Fail(EINVAL) for others.
std::vector<uint8_t> ParseMac(const std::string& text);
std::vector<uint8_t> ParseAddress(const std::string& text);
std::string FormatMac(const uint8_t* bytes);
std::string FormatAddress(const uint8_t* bytes, size_t size);
