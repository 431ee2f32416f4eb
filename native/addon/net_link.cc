// Changes by rtnetlink: links, addresses, routes, rules, neighbours and forwarding entries, as a list run in order.
//
// Requests are sent together as far as possible; one that needs the index of a link made earlier in the list makes the
// ones before it go first. The list stops at the first refusal that is not among the request's `tolerate` names.
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <memory>

#include "net_internal.h"
#include "net_rtnl.h"
#include "net_thread.h"

namespace {

struct Pending {
  NlMessage message;
  const Bag* op;
};

std::string Describe(const Bag& op) {
  std::string s = op.str("op");
  for (const char* key : {"name", "kind", "dev", "to", "address", "mac", "via"})
    if (op.has(key) && !op.str(key).empty()) s += " " + op.str(key);
  return s;
}

class Batch {
 public:
  explicit Batch(const std::string& netns) : netns_(netns), socket_(NETLINK_ROUTE) {}

  void run(const Bag& op) {
    const std::string kind = op.str("op");
    if (kind == "linkAdd") linkAdd(op);
    else if (kind == "linkSet") linkSet(op);
    else if (kind == "linkDel") linkDel(op);
    else if (kind == "bridgePort") bridgePort(op);
    else if (kind == "addrAdd" || kind == "addrDel") address(op, kind == "addrAdd");
    else if (kind == "routeReplace" || kind == "routeDel") route(op, kind == "routeReplace");
    else if (kind == "ruleAdd" || kind == "ruleDel") rule(op, kind == "ruleAdd");
    else if (kind == "neighReplace" || kind == "neighDel") neighbour(op, kind == "neighReplace");
    else if (kind == "fdbReplace" || kind == "fdbDel") forwarding(op, kind == "fdbReplace");
    else Fail(EINVAL, "rtnetlink", netns_, kind, "no such operation");
  }

  void flush() {
    if (pending_.empty()) return;
    std::vector<NlMessage*> requests;
    for (auto& p : pending_) requests.push_back(&p.message);
    NetError first = {0, "rtnetlink", netns_, "", ""};
    size_t at = SIZE_MAX;
    socket_.transact(requests, [&](size_t i, int err, const char* text) {
      if (tolerated(*pending_[i].op, err) || i >= at) return;
      at = i;
      first.err = err;
      first.stage = Describe(*pending_[i].op);
      first.detail = text;
    });
    pending_.clear();
    fds_.clear();
    if (first.err) throw first;
  }

 private:
  static bool tolerated(const Bag& op, int err) {
    auto it = op.lists.find("tolerate");
    const char* name = strerrorname_np(err);
    return it != op.lists.end() && name && std::find(it->second.begin(), it->second.end(), name) != it->second.end();
  }

  // 0 when the link is absent and the operation tolerates ENODEV: the caller then leaves the operation out.
  unsigned index(const Bag& op, const std::string& name) {
    flush();
    unsigned i = if_nametoindex(name.c_str());
    if (i == 0 && !tolerated(op, ENODEV)) Fail(ENODEV, "rtnetlink", netns_, Describe(op), "no link " + name);
    return i;
  }

  int netnsFd(const std::string& path) {
    Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) Fail(errno, "open", path, "namespace");
    fds_.push_back(std::move(fd));
    return fds_.back().get();
  }

  NlMessage& push(const Bag& op, int type, int flags, const void* header, size_t size) {
    pending_.push_back({NlMessage(type, flags, header, size), &op});
    return pending_.back().message;
  }

  void common(NlMessage& m, const Bag& op) {
    if (op.has("mtu")) m.u32(IFLA_MTU, op.num("mtu"));
    if (op.has("mac")) m.attr(IFLA_ADDRESS, ParseMac(op.str("mac")).data(), 6);
    if (op.has("netns")) m.u32(IFLA_NET_NS_FD, netnsFd(op.str("netns")));
  }

  static void upDown(struct ifinfomsg& i, const Bag& op) {
    if (!op.has("up")) return;
    i.ifi_change = IFF_UP;
    i.ifi_flags = op.flag("up") ? IFF_UP : 0;
  }

  void linkAdd(const Bag& op) {
    unsigned parent = op.has("parent") ? index(op, op.str("parent")) : 0;
    unsigned master = op.has("master") ? index(op, op.str("master")) : 0;
    struct ifinfomsg i = {};
    upDown(i, op);
    NlMessage& m = push(op, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof i);
    m.str(IFLA_IFNAME, op.str("name"));
    common(m, op);
    if (master) m.u32(IFLA_MASTER, master);
    if (parent) m.u32(IFLA_LINK, parent);
    std::string kind = op.str("kind");
    size_t info = m.begin(IFLA_LINKINFO);
    m.str(IFLA_INFO_KIND, kind);
    size_t data = m.begin(IFLA_INFO_DATA);
    if (kind == "veth") peer(m, op);
    else if (kind == "vxlan") vxlan(m, op);
    else if (kind == "macvlan") m.u32(IFLA_MACVLAN_MODE, macvlanMode(op));
    else if (kind == "vlan") m.u16(IFLA_VLAN_ID, op.num("vlanId"));
    m.end(data);
    m.end(info);
    flush();
  }

  void peer(NlMessage& m, const Bag& op) {
    size_t p = m.begin(VETH_INFO_PEER);
    struct ifinfomsg i = {};
    m.raw(&i, sizeof i);
    m.str(IFLA_IFNAME, op.str("peerName"));
    if (op.has("peerMtu")) m.u32(IFLA_MTU, op.num("peerMtu"));
    if (op.has("peerMac")) m.attr(IFLA_ADDRESS, ParseMac(op.str("peerMac")).data(), 6);
    if (op.has("peerNetns")) m.u32(IFLA_NET_NS_FD, netnsFd(op.str("peerNetns")));
    m.end(p);
  }

  void vxlan(NlMessage& m, const Bag& op) {
    m.u32(IFLA_VXLAN_ID, op.num("vni"));
    m.u16(IFLA_VXLAN_PORT, htons(op.num("port")));
    if (op.has("local")) {
      auto a = ParseAddress(op.str("local"));
      m.attr(a.size() == 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, a.data(), a.size());
    }
    m.u8(IFLA_VXLAN_LEARNING, op.flag("learning"));
    m.u8(IFLA_VXLAN_PROXY, op.flag("proxy"));
    m.u8(IFLA_VXLAN_UDP_CSUM, op.flag("udpChecksum", true));
  }

  uint32_t macvlanMode(const Bag& op) {
    std::string mode = op.str("mode");
    if (mode.empty() || mode == "bridge") return MACVLAN_MODE_BRIDGE;
    if (mode == "private") return MACVLAN_MODE_PRIVATE;
    if (mode == "vepa") return MACVLAN_MODE_VEPA;
    if (mode == "passthru") return MACVLAN_MODE_PASSTHRU;
    Fail(EINVAL, "rtnetlink", netns_, Describe(op), "macvlan mode " + mode);
  }

  void linkSet(const Bag& op) {
    struct ifinfomsg i = {};
    i.ifi_index = index(op, op.str("name"));
    if (i.ifi_index == 0) return;
    unsigned master = op.str("master").empty() ? 0 : index(op, op.str("master"));
    upDown(i, op);
    NlMessage& m = push(op, RTM_NEWLINK, 0, &i, sizeof i);
    common(m, op);
    if (op.has("master")) m.u32(IFLA_MASTER, master);
    if (op.has("rename")) m.str(IFLA_IFNAME, op.str("rename"));
    if (op.has("alias")) m.attr(IFLA_IFALIAS, op.str("alias").data(), op.str("alias").size());
    flush();
  }

  void linkDel(const Bag& op) {
    struct ifinfomsg i = {};
    i.ifi_index = index(op, op.str("name"));
    if (i.ifi_index == 0) return;
    push(op, RTM_DELLINK, 0, &i, sizeof i);
    flush();
  }

  void bridgePort(const Bag& op) {
    struct ifinfomsg i = {};
    i.ifi_family = AF_BRIDGE;
    i.ifi_index = index(op, op.str("name"));
    if (i.ifi_index == 0) return;
    NlMessage& m = push(op, RTM_SETLINK, 0, &i, sizeof i);
    size_t p = m.begin(IFLA_PROTINFO | NLA_F_NESTED);
    if (op.has("learning")) m.u8(IFLA_BRPORT_LEARNING, op.flag("learning"));
    if (op.has("flood")) m.u8(IFLA_BRPORT_UNICAST_FLOOD, op.flag("flood"));
    if (op.has("hairpin")) m.u8(IFLA_BRPORT_MODE, op.flag("hairpin"));
    if (op.has("isolated")) m.u8(IFLA_BRPORT_ISOLATED, op.flag("isolated"));
    m.end(p);
  }

  void address(const Bag& op, bool add) {
    auto a = ParseAddress(op.str("address"));
    struct ifaddrmsg h = {};
    h.ifa_family = a.size() == 4 ? AF_INET : AF_INET6;
    h.ifa_prefixlen = op.num("prefix");
    h.ifa_index = index(op, op.str("dev"));
    if (h.ifa_index == 0) return;
    NlMessage& m = push(op, add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &h, sizeof h);
    m.attr(IFA_LOCAL, a.data(), a.size());
    m.attr(IFA_ADDRESS, a.data(), a.size());
    if (op.has("broadcast")) m.attr(IFA_BROADCAST, ParseAddress(op.str("broadcast")).data(), 4);
    if (a.size() == 16) m.u32(IFA_FLAGS, IFA_F_NODAD);  // our pools make duplicates impossible; detection costs a second
  }

  void route(const Bag& op, bool replace) {
    struct rtmsg r = {};
    unsigned dev = op.has("dev") ? index(op, op.str("dev")) : 0;
    if (op.has("dev") && dev == 0) return;
    std::string to = op.str("to");
    std::vector<uint8_t> dst, via;
    if (op.has("via")) via = ParseAddress(op.str("via"));
    if (to != "default") {
      size_t slash = to.find('/');
      dst = ParseAddress(to.substr(0, slash));
      r.rtm_dst_len = slash == std::string::npos ? dst.size() * 8 : std::stoi(to.substr(slash + 1));
    }
    r.rtm_family = (dst.empty() ? via.size() : dst.size()) == 16 ? AF_INET6 : AF_INET;
    r.rtm_table = RT_TABLE_UNSPEC;
    r.rtm_protocol = RTPROT_STATIC;
    r.rtm_type = RTN_UNICAST;
    r.rtm_scope = !replace ? RT_SCOPE_NOWHERE : via.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    if (op.flag("onlink")) r.rtm_flags |= RTNH_F_ONLINK;
    NlMessage& m = push(op, replace ? RTM_NEWROUTE : RTM_DELROUTE, replace ? NLM_F_CREATE | NLM_F_REPLACE : 0, &r, sizeof r);
    m.u32(RTA_TABLE, op.num("table", RT_TABLE_MAIN));
    if (!dst.empty()) m.attr(RTA_DST, dst.data(), dst.size());
    if (!via.empty()) m.attr(RTA_GATEWAY, via.data(), via.size());
    if (dev) m.u32(RTA_OIF, dev);
    if (op.has("metric")) m.u32(RTA_PRIORITY, op.num("metric"));
    if (op.has("source")) {
      auto s = ParseAddress(op.str("source"));
      m.attr(RTA_PREFSRC, s.data(), s.size());
    }
  }

  void rule(const Bag& op, bool add) {
    struct fib_rule_hdr h = {};
    h.family = AF_INET;
    h.action = FR_ACT_TO_TBL;
    std::vector<uint8_t> from;
    if (op.has("from")) {
      from = ParseAddress(op.str("from"));
      h.family = from.size() == 4 ? AF_INET : AF_INET6;
      h.src_len = from.size() * 8;
    }
    NlMessage& m = push(op, add ? RTM_NEWRULE : RTM_DELRULE, add ? NLM_F_CREATE | NLM_F_EXCL : 0, &h, sizeof h);
    m.u32(FRA_PRIORITY, op.num("priority"));
    m.u32(FRA_TABLE, op.num("table"));
    if (!from.empty()) m.attr(FRA_SRC, from.data(), from.size());
    if (op.has("mark")) m.u32(FRA_FWMARK, op.num("mark"));
    if (op.has("mask")) m.u32(FRA_FWMASK, op.num("mask"));
  }

  void neighbour(const Bag& op, bool replace) {
    auto a = ParseAddress(op.str("address"));
    struct ndmsg n = {};
    n.ndm_family = a.size() == 4 ? AF_INET : AF_INET6;
    n.ndm_ifindex = index1(op);
    if (n.ndm_ifindex == 0) return;
    n.ndm_state = NUD_PERMANENT;
    NlMessage& m = push(op, replace ? RTM_NEWNEIGH : RTM_DELNEIGH, replace ? NLM_F_CREATE | NLM_F_REPLACE : 0, &n, sizeof n);
    m.attr(NDA_DST, a.data(), a.size());
    if (replace) m.attr(NDA_LLADDR, ParseMac(op.str("mac")).data(), 6);
  }

  // With `dst`: the VXLAN device's own table; without: the bridge's table, entry of this port.
  void forwarding(const Bag& op, bool replace) {
    struct ndmsg n = {};
    n.ndm_family = PF_BRIDGE;
    n.ndm_ifindex = index1(op);
    if (n.ndm_ifindex == 0) return;
    bool self = op.has("dst");
    n.ndm_state = self ? NUD_PERMANENT : NUD_NOARP;
    n.ndm_flags = self ? NTF_SELF : NTF_MASTER;
    NlMessage& m = push(op, replace ? RTM_NEWNEIGH : RTM_DELNEIGH, replace ? NLM_F_CREATE | NLM_F_REPLACE : 0, &n, sizeof n);
    m.attr(NDA_LLADDR, ParseMac(op.str("mac")).data(), 6);
    if (self) {
      auto a = ParseAddress(op.str("dst"));
      m.attr(NDA_DST, a.data(), a.size());
    }
  }

  // The index of `dev`, remembered within the list while nothing renames links: long lists name one device.
  unsigned index1(const Bag& op) {
    std::string dev = op.str("dev");
    if (dev != lastDev_ || lastIndex_ == 0) {
      lastIndex_ = index(op, dev);
      lastDev_ = dev;
    }
    return lastIndex_;
  }

  std::string netns_;
  NlSocket socket_;
  std::deque<Pending> pending_;
  std::vector<Fd> fds_;
  std::string lastDev_;
  unsigned lastIndex_ = 0;
};

}  // namespace

// netLink(netns, [operations])
Napi::Value NetLink(const Napi::CallbackInfo& info) {
  std::string netns = StringOr(info[0]);
  Napi::Array list = info[1].As<Napi::Array>();
  auto ops = std::make_shared<std::vector<Bag>>();
  for (uint32_t i = 0; i < list.Length(); i++) ops->push_back(Bag::From(list.Get(i).As<Napi::Object>()));
  return RunOnThread(
      info.Env(),
      [netns, ops] {
        EnterNetns(netns);
        Batch batch(netns);
        for (const Bag& op : *ops) batch.run(op);
        batch.flush();
      },
      [](Napi::Env env) { return env.Undefined(); });
}
